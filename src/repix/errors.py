"""The one kind of error that a user is meant to read, and how others' words are shown in it.

It imports nothing of weight: it has to work where there is no memory left to import anything.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """A mistake in the user's input, in one line that also names the mend.

    Stage scripts and the command line print it without a traceback and exit
    with :attr:`exit_code`. Anything else that escapes is a defect of ours and keeps
    its traceback.

    Args:
        line: what is wrong, and the mend.
        more: further lines, such as a file each. A line break within one of the lines is part of a
            name from elsewhere, and is spelt out where it is shown.
    """

    exit_code = 1

    def __init__(self, line: str = "", *more: str):
        super().__init__(line, *more)
        self.lines = tuple(map(str, (line, *more)))

    def __str__(self) -> str:
        return "\n".join(self.lines)


def told(error: UserError) -> str:
    """Return an error as a terminal may be given it: a line for each of its own, see :func:`printable`."""
    return "\n".join(map(printable, error.lines))


def printable(text: str) -> str:
    """Return a text as one line that a terminal may be given: what is no letter is spelt out, ends of lines too.

    Names of files and values from elsewhere may hold what a terminal would obey, what it cannot show, or
    a line that looks like one of ours.
    """
    return "".join(one if one.isprintable() else ascii(one)[1:-1] for one in text)


def printable_lines(text: str) -> str:
    """Return a text of several lines, its lines as :func:`printable` returns them."""
    return "\n".join(map(printable, text.split("\n")))


_ROOM = "make room and run the same command, what was finished is kept"
# What the system refuses -> the mend: no defect of ours, and nothing that a traceback would explain.
_REFUSED = {
    errno.ENOSPC: _ROOM,
    errno.EDQUOT: _ROOM,
    errno.EFBIG: _ROOM,
    errno.EROFS: "work in a folder that can be written",
    errno.EACCES: "let this user read and write there, or work in a folder of its own",
    errno.EPERM: "let this user read and write there, or work in a folder of its own",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EMFILE: "`ulimit -n 4096` allows more, then run the same command",
}
# TensorFlow and HDF5 have errors of their own, which say it in the words of the system, and the loader of
# shared libraries an ImportError.
_WORDS = {os.strerror(number): _REFUSED[number] for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)}
_MEMORY_WORDS = (
    os.strerror(errno.ENOMEM),
    "OOM when allocating",
    "failed to map segment",
    "bad_alloc",
    "start new thread",
)
_SHOWN = 200  # letters of a name


def limit_of_the_machine(error: BaseException) -> str | None:
    """Return one line that says what the system refused, where that is what an error says; else None.

    That is disk, memory, the right to read or write, a name that is too long. Errors that it was raised from
    count as well: a library may say that it cannot be imported, and why below.
    """
    seen: BaseException | None = error
    while seen is not None:
        text = str(seen)
        if isinstance(seen, OSError) and seen.errno in _REFUSED:
            name = os.fsdecode(seen.filename) if isinstance(seen.filename, str | bytes | os.PathLike) else ""
            where = f"{name if len(name) <= _SHOWN else f'{name[:_SHOWN]}...'}: " if name else ""
            return f"{where}{seen.strerror}; {_REFUSED[seen.errno]}"
        if (words := next((words for words in _WORDS if words in text), None)) is not None:
            return f"{words}; {_WORDS[words]}"
        if isinstance(seen, MemoryError) or any(words in text for words in _MEMORY_WORDS):
            return "not enough memory; give it more, or lower batch_size or crop_size; what was finished is kept"
        seen = seen.__cause__ or seen.__context__
    return None


def stop_behind(error: BaseException) -> KeyboardInterrupt | None:
    """Return the Ctrl-C or signal for which a library says that it could not be imported, or None."""
    seen: BaseException | None = error if isinstance(error, ImportError) else None
    while seen is not None and not isinstance(seen, KeyboardInterrupt):
        seen = seen.__cause__ or seen.__context__
    return seen


def words_of(error: BaseException) -> str:
    """Return what an error says, in one line; where it says nothing, what it is."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def reading(path: os.PathLike[str] | str, mend: str) -> Iterator[None]:
    """Make whatever a reader stumbles over a :class:`UserError` that names the file: a damaged one can raise anything.

    What the machine lacks says nothing of the file, and passes as it is.
    """
    try:
        yield
    except Exception as error:
        if limit_of_the_machine(error):
            raise
        raise UserError(f"{os.fspath(path)}: cannot be read ({words_of(error)}); {mend}") from None
