"""The one kind of error that a user is meant to read, and how others' words are shown in it."""


class UserError(Exception):
    """A mistake in the user's input, in one line that also names the mend.

    Stage scripts and the command line print it without a traceback and exit
    with :attr:`exit_code`. Anything else that escapes is a defect of ours and keeps
    its traceback.
    """

    exit_code = 1


def printable(text: str) -> str:
    """Return a text as a terminal may be given it: what is no letter is spelt out, but for ends of lines.

    Names of files and values from elsewhere may hold what a terminal would obey, or cannot show.
    """
    return "".join(one if one.isprintable() or one == "\n" else ascii(one)[1:-1] for one in text)
