"""The closed vocabulary of the built-in world, and the one tokenizer made from it."""

import re

from hkd_core.world.facts import NEGATED, QUESTIONS, plural
from hkd_core.world.objects import COLORS, NUMBERS, OBJECTS, RELATIONS
from hkd_core.world.tasks import CAPTION_PROMPT, FAITHFUL, LETTERS, VERDICTS, YES_NO

PAD, BOS, EOS, UNKNOWN, IMAGE = "<pad>", "<s>", "</s>", "<unk>", "<image>"
SPECIAL = (PAD, BOS, EOS, UNKNOWN, IMAGE)

# Words of the templates in tasks.py and facts.py, and of the short exercises in language_pretraining.py.
SENTENCES = (
    CAPTION_PROMPT,
    FAITHFUL,
    *VERDICTS,
    *(form for forms in QUESTIONS.values() for form in forms),
    *NEGATED.values(),
    "The image shows a, an and the.",
    "Which phrase is wrong? Which is in the image? Which is not in the image? What color is the",
    "Out of view there may be and Claim: There is a row column color nothing one two three four",
)


def words_of(text: str) -> list[str]:
    """Words and punctuation marks, as the tokenizer splits them."""
    return re.findall(r"\w+|[^\w\s]", text)


def vocabulary() -> list[str]:
    """Every token in a fixed order; the special ones first."""
    sentences = [re.sub(r"{\w+}", "", sentence) for sentence in SENTENCES]
    words = [word for sentence in sentences for word in words_of(sentence)]
    words += [*LETTERS, *YES_NO, *OBJECTS, *COLORS, *NUMBERS, *map(plural, OBJECTS)]
    words += [word for relation in RELATIONS for word in relation.split()]
    return list(dict.fromkeys([*SPECIAL, *words]))
