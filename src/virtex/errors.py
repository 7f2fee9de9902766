"""The exceptions whose message is for the user; every room may import them."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message says what is wrong, where, what was expected and what to do; the command line prints
    it without a traceback and exits with `exit_status`.
    """

    exit_status = 2


class RunError(UserError):
    """A run that could not go on although its input was accepted."""

    exit_status = 1
