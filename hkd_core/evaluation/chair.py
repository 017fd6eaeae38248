"""CHAIR (arXiv 1809.02156): of the objects a caption names, how many are not in the picture.

Objects are the words and phrases of a vocabulary, each with its synonyms; the longest phrase wins ("hot dog" is no dog). Words are
singularised by a short list of irregular forms and of endings, and only into words of the vocabulary (our own lemmatiser; published
scores use two others, pattern's and WordNet's, that differ from each other by up to 1.6 points). Of COCO's 377 single words and their
plurals ours reads all; pattern's loses "bus", "minibus", "airbus", "canoes", "magpies" and "ties"; WordNet's takes "seated" for a chair
and "skateboarding" for a skateboard, and knows no person in "men". `benchmarks/chair.py` compares with any published file: on 500 captions
by LLaVA-1.5 that WordNet's scored 22.0 (CHAIR_s) and 7.20 (CHAIR_i), ours gives 22.0 and 7.15.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hkd_core.common.errors import UserError
from hkd_core.common.files import read_text

IRREGULAR = {"buses": "bus", "people": "person", "mice": "mouse", "geese": "goose", "calves": "calf"}
# Endings of plurals and of their singulars, tried in this order.
ENDINGS = (("ies", "y"), ("ves", "fe"), ("children", "child"), ("men", "man"), ("es", ""), ("s", ""))
COCO = Path(__file__).with_name("coco_synonyms.txt")


@dataclass(frozen=True)
class Vocabulary:
    """What counts as an object. `names`: the words of a phrase -> canonical name, or "" for a phrase that is none ("train track").

    `unless`: a word that is no object in a caption that also has the other one.
    """

    names: Mapping[tuple[str, ...], str]
    unless: Mapping[str, str] = field(default_factory=dict)


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

    Kept as published: "baby bird" and "adult bird" are a bird alone, a "passenger train" a train, a "train track" and a "home
    plate" nothing; "seat" is no chair where a toilet is named; an orange wall counts as an orange. Mended, so rarer by hundredths
    of a point: the published reader knows neither "motor bike", "cheesecake" nor "iPhone" (spaces and capitals in its
    list), and counts "stove top oven" twice.
    """
    names = dict(vocabulary_of(read_synonyms(COCO)).names)
    for animal in ("bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub"):
        for age in ("baby", "adult"):
            names[age, animal] = names.get((animal,), "")
    for vehicle in ("jet", "train"):
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
    """Canonical names of the objects that the caption names, in order, repeats kept."""
    names = vocabulary.names
    known = {word for name in names for word in name}
    words = tuple(singular(word, known) for word in words_in(caption))
    words = tuple(word for word in words if vocabulary.unless.get(word) not in words)
    longest = max(map(len, names), default=0)
    found, at = [], 0
    while at < len(words):
        sizes = (size for size in range(longest, 0, -1) if words[at : at + size] in names)
        size = next(sizes, 0)
        if size:
            found.append(names[words[at : at + size]])
        at += size or 1
    return [name for name in found if name]


def chair(captions: Sequence[tuple[str, str]], objects: Mapping[str, Collection[str]], vocabulary: Vocabulary) -> dict:
    """captions: (image_id, text); objects: image_id -> names there, synonyms allowed.

    Scores in percent, as published, with the counts of every caption.

    chair_s: captions with a hallucinated object; chair_i: hallucinated among all named objects, repeats counted; recall:
    objects named among objects there, pooled; mean_words: the captions' length.
    """
    rows = []
    for image_id, text in captions:
        named = mentioned(text, vocabulary)
        there = {vocabulary.names.get(words_in(name), name) for name in objects[image_id]}
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


def by_length(captions: Sequence[tuple[str, str]], limits: Sequence[int], objects: Mapping, vocabulary: Vocabulary) -> list[dict]:
    """The scores of every caption's first `limit` words, for each limit: captions compared at equal length.

    A model that says more names more, wrong things too; at equal length that advantage of short captions is gone (our choice).
    """
    rows = []
    for limit in limits:
        cut = [(image_id, " ".join(text.split()[:limit])) for image_id, text in captions]
        scores = chair(cut, objects, vocabulary)
        rows.append({"words": limit} | {name: scores[name] for name in ("chair_s", "chair_i", "recall", "mean_words")})
    return rows
