"""What the built-in world contains: forty objects in five contexts, colours, relations, and how often things occur.

Nothing here is random; `scenes.py` draws from it.
"""

from dataclasses import dataclass

GRID = 4  # a picture is GRID x GRID cells
CELL = 16  # pixels a cell
SIDE = GRID * CELL
CELLS = GRID * GRID

# Rarest last: an object's place in its context is its rank of popularity.
CONTEXTS = {
    "kitchen": {"cup": "☕", "bread": "🍞", "apple": "🍎", "knife": "🔪", "egg": "🥚", "cheese": "🧀", "pizza": "🍕", "spoon": "🥄"},
    "street": {"car": "🚗", "bicycle": "🚲", "bus": "🚌", "truck": "🚚", "scooter": "🛴", "motorcycle": "🏍️", "tram": "🚋", "signal": "🚦"},
    "farm": {"dog": "🐕", "cow": "🐄", "horse": "🐎", "sheep": "🐑", "hen": "🐔", "tractor": "🚜", "pig": "🐖", "corn": "🌽"},
    "beach": {"umbrella": "⛱️", "boat": "⛵", "palm": "🌴", "fish": "🐟", "shell": "🐚", "crab": "🦀", "turtle": "🐢", "anchor": "⚓"},
    "office": {"laptop": "💻", "chair": "🪑", "phone": "☎️", "book": "📕", "clock": "⏰", "printer": "🖨️", "calendar": "📅", "pen": "🖊️"},
}  # fmt: skip

COLORS = {"red": (225, 40, 45), "yellow": (240, 200, 30), "green": (40, 165, 70), "blue": (50, 95, 225)}
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
NUMBERS = ("zero", "one", "two", "three")

# The ground of a picture speaks of its context, as the low frequencies of a photograph do.
GROUNDS = {
    "kitchen": (236, 222, 200),
    "street": (168, 170, 178),
    "farm": (178, 208, 150),
    "beach": (240, 216, 160),
    "office": (196, 206, 226),
}

OBJECTS = tuple(name for members in CONTEXTS.values() for name in members)
EMOJI = {name: emoji for members in CONTEXTS.values() for name, emoji in members.items()}
CONTEXT_OF = {name: context for context, members in CONTEXTS.items() for name in members}
RANK = {name: rank for members in CONTEXTS.values() for rank, name in enumerate(members)}
RANKS = 8


def popularity(name: str) -> float:
    """How likely an object is picked within its context, relative to the others: 1 for the most popular, 1/4 for the rarest."""
    return 1.0 / (1.0 + 3.0 * RANK[name] / (RANKS - 1))


@dataclass(frozen=True)
class Thing:
    """One object in a picture: its name, colour, and cell (row-major, 0 to 15)."""

    name: str
    color: str
    cell: int

    @property
    def row(self) -> int:
        return self.cell // GRID

    @property
    def column(self) -> int:
        return self.cell % GRID


def related(a: Thing, relation: str, b: Thing) -> bool:
    """Whether `a` is `relation` `b`, by rows and columns."""
    return {
        "left of": a.column < b.column,
        "right of": a.column > b.column,
        "above": a.row < b.row,
        "below": a.row > b.row,
    }[relation]
