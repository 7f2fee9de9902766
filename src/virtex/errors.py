"""The one exception that means "the input is wrong"; every room may import it."""


class UserError(Exception):
    """A mistake that the user can mend.

    The message says what is wrong, where, what was expected and what to do; the command line prints
    it without a traceback.
    """
