"""The one exception for mistakes that a person can fix."""


class UserError(Exception):
    """Bad input, a wrong setting or a missing thing. Its text is one line: what, where, and what was expected."""
