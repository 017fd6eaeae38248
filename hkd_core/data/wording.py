"""How a dataset words its questions: all that a method needs to ask the same thing in another way."""

from collections.abc import Sequence


def article(name: str) -> str:
    """The name with its article: "a dog", "an apple"."""
    return f"{'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"


class Wording:
    """The wording of a dataset that says nothing special; datasets bring a subclass.

    A method that needs more than this class knows says what it cannot do, and does the rest.
    """

    yes_no: tuple[str, str] = ("Yes", "No")  # the answers to a yes/no question

    def ask_about(self, name: str) -> str:
        """A yes/no question about the presence of `name`, in POPE's words (arXiv 2305.10355)."""
        return f"Is there {article(name)} in the image?"

    def list_options(self, options: Sequence[str]) -> str | None:
        """The options as the dataset's prompts list them, or None if that is not known."""
        return None

    def negate(self, example: dict) -> str | None:
        """The prompt that asks for the opposite of a yes/no example, so that the right answer flips, or None if there is none."""
        return None

    def content_kinds(self, options: Sequence[str]) -> list[int]:
        """A class for each option, by its content where the dataset's contents recur; here: by its place."""
        return list(range(len(options)))
