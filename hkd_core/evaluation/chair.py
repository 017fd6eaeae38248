"""CHAIR (arXiv 1809.02156): of the objects a caption names, how many are not in the picture.

Objects are the words and phrases of a vocabulary, each with its synonyms; the longest phrase wins ("hot dog" is no dog). Words are
singularised by a list of irregular forms and the rules for -s, -es, -ies (our own lemmatiser; published scores use two others
that differ from each other by up to 1.6 points).
"""

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np

IRREGULAR = {"knives": "knife", "buses": "bus", "people": "person", "men": "man", "women": "woman", "children": "child"}
Vocabulary = Mapping[tuple[str, ...], str]  # words of a name -> canonical name


def vocabulary_of(synonyms: Collection[Sequence[str] | str]) -> dict[tuple[str, ...], str]:
    """Names, or sets of synonyms with the canonical name first -> what `mentioned` reads by. An earlier set wins a shared word."""
    found: dict[tuple[str, ...], str] = {}
    for names in ((entry,) if isinstance(entry, str) else entry for entry in synonyms):
        for name in names:
            found.setdefault(words_in(name), names[0])
    return found


def words_in(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"[a-z]+", text.lower()))


def singular(word: str, known: Collection[str]) -> str:
    """The word itself if it is known, else its singular if that is, else the word."""
    if word in known:
        return word
    options = [IRREGULAR.get(word, word)]
    options += [word[:-3] + "y"] * word.endswith("ies") + [word[:-2]] * word.endswith("es") + [word[:-1]] * word.endswith("s")
    return next((option for option in options if option in known), word)


def mentioned(caption: str, vocabulary: Vocabulary) -> list[str]:
    """Canonical names of the objects that the caption names, in order, repeats kept."""
    known = {word for name in vocabulary for word in name}
    words = tuple(singular(word, known) for word in words_in(caption))
    longest = max(map(len, vocabulary), default=0)
    found, at = [], 0
    while at < len(words):
        sizes = (size for size in range(longest, 0, -1) if words[at : at + size] in vocabulary)
        size = next(sizes, 0)
        if size:
            found.append(vocabulary[words[at : at + size]])
        at += size or 1
    return found


def chair(captions: Sequence[tuple[str, str]], objects: Mapping[str, Collection[str]], synonyms: Collection[Sequence[str] | str]) -> dict:
    """captions: (image_id, text); objects: names there, synonyms allowed; synonyms: as `vocabulary_of` takes them.

    Scores in percent, as published, with the counts of every caption.

    chair_s: captions with a hallucinated object; chair_i: hallucinated among all named objects, repeats counted; recall:
    objects named among objects there, pooled; mean_words: the captions' length.
    """
    rows = []
    vocabulary = vocabulary_of(synonyms)
    for image_id, text in captions:
        named = mentioned(text, vocabulary)
        there = {vocabulary.get(words_in(name), name) for name in objects[image_id]}
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
