"""The one kind of error that a user is meant to read."""


class UserError(Exception):
    """A mistake in the user's input, in one line that also names the mend.

    Every door (stage scripts, command line) prints it without a traceback and exits
    with :attr:`exit_code`. Anything else that escapes is a defect of ours and keeps
    its traceback.
    """

    exit_code = 1
