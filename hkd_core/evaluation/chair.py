"""CHAIR (arXiv 1809.02156): of the objects a caption names, how many are not in the picture.

Words are singularised by a list of irregular forms and the rules for -s, -es, -ies (our own lemmatiser; published scores
use two others that differ from each other by up to 1.6 points).
"""

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np

IRREGULAR = {"knives": "knife", "buses": "bus", "people": "person", "men": "man", "women": "woman", "children": "child"}


def singular(word: str, vocabulary: Collection[str]) -> str:
    """The word itself if it is an object, else its singular if that is one, else the word."""
    if word in vocabulary:
        return word
    options = [IRREGULAR.get(word, word)]
    options += [word[:-3] + "y"] * word.endswith("ies") + [word[:-2]] * word.endswith("es") + [word[:-1]] * word.endswith("s")
    return next((option for option in options if option in vocabulary), word)


def mentioned(caption: str, vocabulary: Collection[str]) -> list[str]:
    """Objects of the vocabulary that the caption names, in order, repeats kept."""
    words = [singular(word, vocabulary) for word in re.findall(r"[a-z]+", caption.lower())]
    return [word for word in words if word in vocabulary]


def chair(captions: Sequence[tuple[str, str]], objects: Mapping[str, Collection[str]], vocabulary: Collection[str]) -> dict:
    """captions: (image_id, text). Scores in percent, as published, with the counts of every caption.

    chair_s: captions with a hallucinated object; chair_i: hallucinated among all named objects, repeats counted; recall:
    objects named among objects there, pooled; mean_words: the captions' length.
    """
    rows = []
    for image_id, text in captions:
        named, there = mentioned(text, vocabulary), set(objects[image_id])
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
