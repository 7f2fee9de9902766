"""Exceptions whose message is meant for the user."""


class UserError(Exception):
    """A mistake that the user can correct.

    The message states what is wrong, where, what was expected and what to do; the command line
    prints it without a traceback and exits with `exit_status`.
    """

    exit_status = 2


class RunError(UserError):
    """A run that failed although its input was accepted."""

    exit_status = 1
