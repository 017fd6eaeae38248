"""A scene from a line of text, for pictures of the reader's own making: "a red dog, two blue cups and a boat"."""

import random
import re
from collections import Counter

from hkd_core.common.errors import UserError
from hkd_core.world.objects import CELLS, COLORS, CONTEXT_OF, OBJECTS, Thing
from hkd_core.world.scenes import Scene

NUMBER = {"a": 1, "an": 1, "the": 1, "one": 1, "two": 2, "three": 3, "four": 4}


def scene_of(text: str, image_id: str = "own") -> Scene:
    """Things between commas or "and", each with a number and a colour if one cares; where they stand depends on the text alone.

    The ground is that of the context most things belong to. Raises UserError for a word that is not known, for nothing at all,
    or for more things than a picture has room for.
    """
    rng = random.Random(f"drawn/{text}")
    things: list[tuple[str, str]] = []
    for part in filter(None, (piece.strip() for piece in re.split(r",|\band\b", text.lower().rstrip(".")))):
        count, color = 1, rng.choice(list(COLORS))
        *before, last = part.split()
        name = next((n for n in (last, last.removesuffix("s"), last.removesuffix("ves") + "fe") if n in OBJECTS), None)
        if name is None:
            raise UserError(f'"{part}": no object "{last}" in this world; there are {", ".join(OBJECTS)}')
        for word in before:
            if word not in NUMBER and word not in COLORS:
                raise UserError(
                    f'"{part}": expected a number ({", ".join(NUMBER)}) or a colour ({", ".join(COLORS)}), got "{word}"'
                )
            count, color = NUMBER.get(word, count), word if word in COLORS else color
        things += [(name, color)] * count
    if not 1 <= len(things) <= CELLS:
        raise UserError(f"a picture of your own: expected 1 to {CELLS} things, got {len(things)}")
    context = Counter(CONTEXT_OF[name] for name, _ in things).most_common(1)[0][0]
    placed = zip(things, rng.sample(range(CELLS), len(things)), strict=True)
    return Scene(image_id, context, tuple(sorted((Thing(*thing, cell) for thing, cell in placed), key=lambda thing: thing.cell)))
