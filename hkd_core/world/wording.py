"""The wording of the built-in world, for methods that ask its questions in another way."""

from collections.abc import Sequence

from hkd_core.data.wording import Wording
from hkd_core.world.facts import Fact, question
from hkd_core.world.tasks import FAITHFUL, VERDICTS, lettered


class WorldWording(Wording):
    """Lettered options ("A: dog B: cup"), questions about facts, and the contents that recur."""

    def ask_about(self, name: str) -> str:
        return question(Fact("presence", name))

    def list_options(self, options: Sequence[str]) -> str:
        return lettered(list(options))

    def negate(self, example: dict) -> str | None:
        """The opposite question of an example that names its fact and says whether it is negated; else None."""
        meta = example.get("meta") or {}
        facts, negated = meta.get("facts"), meta.get("negated")
        if not facts or negated is None:
            return None
        return question(Fact(**facts[0]), negated=not negated)

    def content_classes(self, options: Sequence[str]) -> list[int]:
        """Verdicts by their word, "no hallucination" apart from the phrases, everything else by its place."""
        if set(options) == set(VERDICTS):
            return [VERDICTS.index(option) for option in options]
        if FAITHFUL in options:
            return [int(option == FAITHFUL) for option in options]
        return super().content_classes(options)


WORDING = WorldWording()
