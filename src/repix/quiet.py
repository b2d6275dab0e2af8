"""Holding back what native libraries say while they load, unless something goes wrong."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from repix.errors import UserError


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


def import_keras() -> None:
    """Import Keras and its backend without their chatter; the profile must be in force.

    Raises:
        UserError: the backend is JAX, which is not installed.
    """
    try:
        with native_chatter():
            import keras  # noqa: F401
    except ModuleNotFoundError as error:
        if error.name not in ("jax", "jaxlib"):
            raise
        raise UserError(
            "the profile jax needs JAX: pip install -c constraints.txt -e '.[jax]', or '.[jax-cuda]' on a GPU"
        ) from None
