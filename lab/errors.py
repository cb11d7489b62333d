"""The one error a user is meant to read."""


class LabError(Exception):
    """Something the user can put right.

    The message is one sentence that names the offending value, the limit it breaks and the remedy.
    The command line prints it without a traceback and exits with status 2.
    """
