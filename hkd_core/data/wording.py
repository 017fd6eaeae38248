"""How a dataset words its questions: all that a method needs to ask the same thing in another way."""

from collections.abc import Sequence

from hkd_core.common.errors import UserError


def article(name: str) -> str:
    """The name with its article: "a dog", "an apple"."""
    return f"{'an' if name[:1].lower() in tuple('aeiou') else 'a'} {name}"


class Wording:
    """The wording of a dataset of which nothing special is known; datasets bring a subclass.

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

    def content_classes(self, options: Sequence[str]) -> list[int]:
        """A class for each option, by its content where the dataset's contents recur; here: by its place."""
        return list(range(len(options)))


def options_of(example: dict) -> list[str]:
    """The contents behind an example's letters (`meta["options"]`), in the order of its choices; [] where it has none."""
    return list((example.get("meta") or {}).get("options") or [])


def rotations(example: dict, wording: Wording) -> list[dict]:
    """The example with its options moved on by 0, 1, 2, ... places, and its answer with them. The first is the example itself.

    [example] where there are no options, or the wording cannot list them. Raises UserError, naming the example, if its prompt does
    not list the options as the wording says. It also does where there are not as many choices as options.
    """
    options, choices = options_of(example), example["choices"]
    listed = wording.list_options(options) if options else None
    if listed is None:
        return [example]
    name = example.get("image_id") or "example"
    if listed not in example["prompt"]:
        raise UserError(f'{name}: mapping shift: expected the options as "{listed}" in the prompt, got "{example["prompt"]}"')
    if len(choices) != len(options):
        raise UserError(f"{name}: mapping shift: expected one choice for each of {len(options)} options, got {len(choices)}")
    found = [example]
    for turn in range(1, len(options)):
        moved = options[turn:] + options[:turn]
        prompt = example["prompt"].replace(listed, wording.list_options(moved) or "")
        answer = example.get("answer")
        if answer:
            answer = choices[(choices.index(answer) - turn) % len(options)]
        found.append(example | {"prompt": prompt, "answer": answer or "", "meta": example["meta"] | {"options": moved}})
    return found
