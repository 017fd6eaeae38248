"""The one exception for mistakes that a person can fix."""


def one_line(text: str) -> str:
    """A text without line breaks and without halves of surrogate pairs, which no terminal can show."""
    return " ".join(text.split("\n")).replace("\r", " ").encode("utf-8", "backslashreplace").decode()


class UserError(Exception):
    """Bad input, a wrong setting or a missing thing. Its text is one line: what, where, and what was expected."""

    def __init__(self, text: str):
        super().__init__(one_line(text))
