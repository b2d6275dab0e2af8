"""The one kind of error that a user is meant to read."""


class UserError(Exception):
    """A mistake in the user's input, in one line that also names the mend.

    Stage scripts and the command line print it without a traceback and exit
    with :attr:`exit_code`. Anything else that escapes is a defect of ours and keeps
    its traceback.
    """

    exit_code = 1
