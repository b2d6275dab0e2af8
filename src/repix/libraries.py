"""Libraries that come late: what installs those of an extra, and Keras in half its time.

What native libraries say while they load is kept from the user, unless something goes wrong.
"""

from __future__ import annotations

import functools
import gc
import os
import sys
import tempfile
import typing
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from repix.errors import UserError


def install(extra: str) -> str:
    """Return the command that installs one of our extras: into a clone, or beside the installed package."""
    source = f"-e '.[{extra}]'" if Path("src/repix").is_dir() else f"'repix[{extra}]'"
    return f"pip install -c constraints.txt {source}"


@contextmanager
def native_chatter() -> Iterator[None]:
    """Keep what is written to file descriptor 2 from the user; on an exception, show it.

    TensorFlow speaks of missing GPUs on every import, before any setting of its log level
    is read; a user who reads that looks for a mistake that is none.
    """
    sys.stderr.flush()
    try:
        kept = os.dup(2)
    except OSError:  # no standard error at all: nothing to hold back
        yield
        return
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(kept, 2)
            said.seek(0)
            os.write(2, said.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


OPTIONAL = ("jax", "matplotlib", "pandas", "sklearn")
"""What Keras and TensorFlow import for features that repix never calls, where they find it installed."""


@contextmanager
def _faster_imports() -> Iterator[None]:
    """Let thousands of modules load in half the time, which every stage spends at its start.

    :data:`OPTIONAL` looks as if it were not installed, but for the backend; the type of each operation's argument,
    some forty that are written out twenty thousand times, is compiled once; and nobody looks for garbage among
    what is here to stay, now or later.
    """
    backend, collects = os.environ.get("KERAS_BACKEND"), gc.isenabled()
    hidden = [name for name in OPTIONAL if name != backend and name not in sys.modules]
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: importing it raises ImportError
    typing.compile = functools.cache(compile)  # type: ignore[attr-defined]  # the name that ForwardRef looks up
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()
        gc.freeze()
        del typing.compile  # type: ignore[attr-defined]
        for name in hidden:
            del sys.modules[name]


def import_keras() -> None:
    """Import Keras and its backend without their chatter; the profile must be in force.

    Raises:
        UserError: the backend is JAX, which is not installed; or Keras refuses the user's ``keras.json``.
    """
    if "keras" in sys.modules:  # once for a process: what is frozen with it is never freed
        return
    try:
        with native_chatter(), _faster_imports():
            import keras  # noqa: F401
    except (ImportError, ValueError, TypeError, AttributeError) as error:
        if getattr(error, "name", None) in ("jax", "jaxlib"):
            raise UserError(f"the profile jax needs JAX: {install('jax')}, or jax-cuda for jax on a GPU") from None
        # It is there for everybody, as Keras writes it: an import that fails otherwise is not its fault.
        place = error.__traceback__
        while place is not None and place.tb_next is not None:
            place = place.tb_next
        file = Path(place.tb_frame.f_code.co_filename) if place is not None else Path()
        if "NNX" not in str(error) and file.parts[-4:] != ("keras", "src", "backend", "config.py"):
            raise
        home = Path.home() if os.access(Path.home(), os.W_OK) else Path("/tmp")  # as Keras chooses it
        config = Path(os.environ.get("KERAS_HOME") or home / ".keras", "keras.json")
        raise UserError(f"{config}: Keras refuses it ({error}); mend or remove it") from None
