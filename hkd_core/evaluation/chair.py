"""CHAIR (arXiv 1809.02156): how many of the objects that a caption names are not in the picture.

Objects are the words and phrases of a vocabulary, each with its synonyms. The longest phrase wins, so a "hot dog" is no dog. This
module counts and holds our own reading of captions. It makes words singular by a short list of irregular forms and endings, and only
into words of the vocabulary. `chair_readings` holds the two readings behind published scores; docs/chair.md compares all three.
"""

import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from hkd_core.common.errors import UserError
from hkd_core.common.files import read_text

IRREGULAR = {"buses": "bus", "people": "person", "mice": "mouse", "geese": "goose", "calves": "calf"}
# Endings of plurals and of their singulars, tried in this order.
ENDINGS = (("ies", "y"), ("ves", "fe"), ("children", "child"), ("men", "man"), ("es", ""), ("s", ""))
COCO = Path(__file__).with_name("coco_synonyms.txt")
ANIMALS = ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub")
AGES = ("baby", "adult")
VEHICLES = ("jet", "train")
Read = Callable[[str], list[str]]  # a caption -> canonical names of its objects, in order, repeats kept


@dataclass(frozen=True)
class Vocabulary:
    """What counts as an object. `names`: the words of a phrase -> canonical name, or "" for a phrase that is none ("train track").

    `unless`: a word that is no object in a caption that also has the other one.
    """

    names: Mapping[tuple[str, ...], str]
    unless: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def words(self) -> frozenset[str]:
        """Every word of every phrase."""
        return frozenset(word for name in self.names for word in name)

    @cached_property
    def longest(self) -> int:
        """Words in the longest phrase."""
        return max(map(len, self.names), default=0)

    def canonical(self, names: Iterable[str]) -> set[str]:
        """The canonical names of objects that are in a picture. A name that the vocabulary lacks stays as it is."""
        return {self.names.get(words_in(name), name) for name in names} - {""}


def vocabulary_of(synonyms: Collection[Sequence[str] | str]) -> Vocabulary:
    """Names, or sets of synonyms with the canonical name first. An earlier set wins a shared word."""
    found: dict[tuple[str, ...], str] = {}
    for names in ((entry,) if isinstance(entry, str) else entry for entry in synonyms):
        for name in names:
            found.setdefault(words_in(name), names[0])
    return Vocabulary(found)


def read_synonyms(path: str | Path) -> list[list[str]]:
    """One set a line, comma separated, the first the canonical name. Raises UserError naming file and line."""
    sets = []
    for number, line in enumerate(read_text(path).split("\n"), 1):
        names = [name.strip() for name in line.split(",")]
        if line.strip() and not all(names):
            raise UserError(f"{path}:{number}: expected names between commas, got an empty one")
        if line.strip():
            sets.append(names)
    return sets


def coco_vocabulary() -> Vocabulary:
    """COCO's 80 objects with the synonym sets and special cases of the published metric (github.com/LisaAnne/Hallucination).

    Kept as published: "baby bird" and "adult bird" are a bird alone, and a "passenger train" is a train. A "train track" and a "home
    plate" are nothing. "seat" is no chair where a toilet is named. An orange wall counts as an orange. Repaired, which matters by
    hundredths of a point: the published script never finds "motor bike", "cheesecake" or "iPhone" (see `chair_readings`).
    """
    names = dict(vocabulary_of(read_synonyms(COCO)).names)
    for animal in ANIMALS:
        for age in AGES:
            names[age, animal] = names.get((animal,), "")
    for vehicle in VEHICLES:
        names["passenger", vehicle] = names[vehicle,]
    names |= {("train", "track"): "", ("home", "plate"): "", ("toilet", "seat"): "toilet"}
    return Vocabulary(names, unless={"seat": "toilet"})


def words_in(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z]+", text.lower()))


def singular(word: str, known: Collection[str]) -> str:
    """The word itself if it is known, else its singular if that is, else the word."""
    if word in known:
        return word
    options = [IRREGULAR.get(word, word)]
    options += [word.removesuffix(plural) + one for plural, one in ENDINGS if word.endswith(plural)]
    return next((option for option in options if option in known), word)


def mentioned(caption: str, vocabulary: Vocabulary) -> list[str]:
    """Our own reading: canonical names of the objects that the caption names, in order, repeats kept. Linear in its length."""
    names = vocabulary.names
    words = tuple(singular(word, vocabulary.words) for word in words_in(caption))
    present = set(words)
    words = tuple(word for word in words if vocabulary.unless.get(word) not in present)
    found, at = [], 0
    while at < len(words):
        sizes = (size for size in range(vocabulary.longest, 0, -1) if words[at : at + size] in names)
        size = next(sizes, 0)
        if size:
            found.append(names[words[at : at + size]])
        at += size or 1
    return [name for name in found if name]


def chair(
    captions: Sequence[tuple[str, str]], objects: Mapping[str, Collection[str]], vocabulary: Vocabulary, read: Read | None = None
) -> dict:
    """Scores in percent, as published, with the counts of every caption.

    captions: (image_id, text); objects: image_id -> names of what is there, synonyms allowed; read: finds a caption's objects
    (default: our own reading, `mentioned`).

    chair_s: captions with a hallucinated object; chair_i: hallucinated among all named objects, repeats counted; recall:
    objects named among objects there, pooled; mean_words: the captions' length.
    """
    rows = []
    for image_id, text in captions:
        named = read(text) if read else mentioned(text, vocabulary)
        there = vocabulary.canonical(objects[image_id])
        wrong = [name for name in named if name not in there]
        row = {"image_id": image_id, "generated": named, "hallucinated": wrong, "words": len(text.split())}
        rows.append(row | {"found": len(there & set(named)), "there": len(there)})
    return chair_scores(rows) | {"captions": rows}


def chair_scores(rows: Sequence[dict]) -> dict:
    """The four scores from the counts of `chair`'s captions."""
    named = max(sum(len(row["generated"]) for row in rows), 1)
    return {
        "chair_s": 100 * float(np.mean([bool(row["hallucinated"]) for row in rows])),
        "chair_i": 100 * sum(len(row["hallucinated"]) for row in rows) / named,
        "recall": 100 * sum(row["found"] for row in rows) / max(sum(row["there"] for row in rows), 1),
        "mean_words": float(np.mean([row["words"] for row in rows])),
    }


def by_length(
    captions: Sequence[tuple[str, str]], limits: Sequence[int], objects: Mapping, vocabulary: Vocabulary, read: Read | None = None
) -> list[dict]:
    """The scores of every caption's first `limit` words, for each limit: captions compared at equal length.

    A model that says more also names more wrong things. At equal length that advantage of short captions is gone (our choice).
    """
    rows = []
    for limit in limits:
        cut = [(image_id, " ".join(text.split()[:limit])) for image_id, text in captions]
        scores = chair(cut, objects, vocabulary, read)
        rows.append({"words": limit} | {name: scores[name] for name in ("chair_s", "chair_i", "recall", "mean_words")})
    return rows
