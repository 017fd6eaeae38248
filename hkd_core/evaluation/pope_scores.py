"""POPE's scores (arXiv 2305.10355) under every public rule for reading an answer, side by side.

The rules, quirks included (public code as of 2026):
- official (AoiDragon/POPE, evaluate.py): the text before the first full stop, commas dropped, is split at single spaces. "No",
  "not" or "no" among the words is a no, everything else a yes. So "No!" and "NO" are a yes.
- opera (shikiw/OPERA, pope_eval.py): the whole text without full stops and commas; adds "NO" and words ending in "n't".
- vcd (DAMO-NLP-SG/VCD, eval_pope.py): lower case, and the letters "yes" anywhere are right where the label is yes, the letters
  "no" anywhere where it is no. So "not sure" and "I know" are right wherever the label is no, and one text can be both.
- vlmevalkit (open-compass/VLMEvalKit, exact matching): exactly one of the words "yes" and "no" after its punctuation rule. Another
  answer is unknown. It is never right and, where the label is yes, is missed.
- lmms_eval (EvolvingLMMs-Lab/lmms-eval): the whole text, lower case, stripped, is "yes" or "no"; "Yes." is neither and leaves
  recall altogether. Its yes_ratio is that of the labels.
- strict (ours, `replies.yes_no`): the first word is "yes" or "no" and the other one occurs nowhere, or "the answer is yes" says
  it. Another answer is unparsed. It is wrong, and missed where the label is yes.

Thoughts (`<think>...</think>`) are taken off before any rule reads a reply.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

from hkd_core.evaluation.replies import yes_no
from hkd_core.evaluation.statistics import cluster_interval

OLD_RANDOM_SPLIT = 2910  # questions in the first release of COCO's random split
FULL_SPLIT = 3000  # questions in every other split
FIRST_PICTURE = "COCO_val2014_000000310196"
MEANS = ("accuracy", "precision", "recall", "f1", "yes_ratio")
COCO = Path(__file__).with_name("coco_synonyms.txt")
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
Parser = Callable[[str, str], str | None]  # text, label -> "yes", "no" or None


def official(text: str, label: str = "") -> str:
    words = text.partition(".")[0].replace(",", "").split(" ")
    return "no" if {"No", "not", "no"} & set(words) else "yes"


def opera(text: str, label: str = "") -> str:
    words = text.replace(".", "").replace(",", "").split(" ")
    return "no" if {"No", "not", "no", "NO"} & set(words) or any(word.endswith("n't") for word in words) else "yes"


def vcd(text: str, label: str) -> str:
    if label in text.lower():
        return label
    return "no" if label == "yes" else "yes"


def vlmevalkit(text: str, label: str = "") -> str | None:
    words = without_punctuation(text.lower()).split()
    found = {"yes", "no"} & set(words)
    return found.pop() if len(found) == 1 else None


def without_punctuation(text: str) -> str:
    """VLMEvalKit's rule: a mark with a space beside it anywhere is deleted everywhere, else it becomes a space."""
    comma_in_number = re.search(r"\d,\d", text)
    cleaned = text
    for mark in PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside_space or comma_in_number else " ")
    return re.sub(r"\.(?!\d)", "", cleaned, count=32)  # a flag passed as the count: the first 32 full stops only


def lmms_eval(text: str, label: str = "") -> str | None:
    text = text.lower().strip()
    return text if text in ("yes", "no") else None


def strict(text: str, label: str = "") -> str | None:
    return yes_no(text)


PARSERS: dict[str, Parser] = {
    "official": official,
    "opera": opera,
    "vcd": vcd,
    "vlmevalkit": vlmevalkit,
    "lmms_eval": lmms_eval,
    "strict": strict,
}


def score(texts: Sequence[str], labels: Sequence[str], parser: str = "strict") -> dict:
    """The scores of one rule, in [0, 1], with the counts they come from.

    texts, labels: [N], labels "yes" or "no". tp + fp + tn + fn + unparsed = N; `unparsed_positive` are the unparsed whose label is
    yes, which count as missed except in lmms_eval. A ratio of nothing is 0. Raises ValueError if there are no answers.
    """
    readings = [PARSERS[parser](text, label) for text, label in zip(texts, labels, strict=True)]
    if not readings:
        raise ValueError("no answers to score")
    seen = list(zip(readings, labels, strict=True))
    tp, fp, tn, fn = (seen.count(kind) for kind in (("yes", "yes"), ("yes", "no"), ("no", "no"), ("no", "yes")))
    lost = seen.count((None, "yes"))
    positives = tp + fn if parser == "lmms_eval" else tp + fn + lost
    precision, recall = tp / max(tp + fp, 1), tp / max(positives, 1)
    yes = list(labels).count("yes") if parser == "lmms_eval" else tp + fp
    return {
        "tp": tp,
        "fp": fp,
        "tn": tn,
        "fn": fn,
        "unparsed": readings.count(None),
        "unparsed_positive": lost,
        "accuracy": (tp + tn) / len(readings),
        "precision": precision,
        "recall": recall,
        "f1": 2 * tp / max(tp + fp + positives, 1),
        "yes_ratio": yes / len(readings),
    }


def strict_f1(
    texts: Sequence[str], labels: Sequence[str], images: Sequence[str], *, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """(F1, low, high) under the strict rule, 95 %, clustered by image."""
    readings = [strict(text) for text in texts]
    pairs = zip(readings, labels, strict=True)
    counts = np.array([(a == b == "yes", a == "yes", b == "yes") for a, b in pairs], float)
    return cluster_interval(counts, images, f1_of_hits, draws=draws, seed=seed)


def f1_of_hits(sums: np.ndarray) -> np.ndarray:
    """F1 from sums [..., 3] of (answered yes and right, answered yes, label yes); 0 where there is nothing."""
    return 2 * sums[..., 0] / np.maximum(sums[..., 1] + sums[..., 2], 1)


def evaluate(
    texts: Sequence[str], labels: Sequence[str], images: Sequence, questions: Sequence[str], *, draws: int = 10_000, seed: int = 0
) -> dict:
    """Everything the command line prints: every rule, the strict one's interval, degenerate answerers, provenance.

    texts, labels, images, questions: [N], the answers, "yes" or "no", which picture, and what was asked.
    """
    parsers = {name: score(texts, labels, name) for name in PARSERS}
    _, low, high = strict_f1(texts, labels, images, draws=draws, seed=seed)
    parsers["strict"] |= {"f1_low": low, "f1_high": high}
    always = {f"all_{word}": score([word] * len(labels), labels) for word in ("yes", "no")}
    return {"n": len(texts), "provenance": provenance(labels, images, questions), "parsers": parsers, "degenerate": always}


def evaluate_splits(splits: Mapping[str, Mapping[str, Sequence]], *, draws: int = 10_000, seed: int = 0) -> dict:
    """`evaluate` of all questions together, of each split, and the splits' mean.

    splits: name -> {"texts", "labels", "images", "questions"}, [N] each. The mean of POPE's three splits is what papers call
    average F1.
    """
    names = ("texts", "labels", "images", "questions")
    found = {name: evaluate(*(rows[key] for key in names), draws=draws, seed=seed) for name, rows in splits.items()}
    if len(splits) > 1:
        whole = evaluate(*([value for rows in splits.values() for value in rows[key]] for key in names), draws=draws, seed=seed)
    else:
        whole = dict(next(iter(found.values())))
    whole["provenance"] = whole["provenance"] | {"variant": variant(splits)}
    if len(splits) > 1:  # what is true of one split only stands there
        told = [row["provenance"] for row in found.values()]
        warnings = [f"{name}: {text}" for name, row in found.items() for text in row["provenance"]["warnings"]]
        whole["provenance"] |= {
            "old_random_split": any(row["old_random_split"] for row in told),
            "comparable_with_published": all(row["comparable_with_published"] for row in told),
            "warnings": warnings,
        }
    means = {
        parser: {key: float(np.mean([row["parsers"][parser][key] for row in found.values()])) for key in MEANS}
        for parser in PARSERS
    }
    return whole | {"splits": found, "mean": means}


def verdicts(texts: Sequence[str], labels: Sequence[str]) -> list[dict]:
    """For every answer what each rule reads ("" for unparsed), and whether the strict one is right."""
    rows = []
    for text, label in zip(texts, labels, strict=True):
        readings = {name: parser(text, label) for name, parser in PARSERS.items()}
        rows.append({name: word or "" for name, word in readings.items()} | {"right": readings["strict"] == label})
    return rows


def variant(splits: Mapping[str, Mapping[str, Sequence]]) -> str:
    """Which of the circulating question files these are, as far as size and spelling tell.

    COCO's questions exist as today's official files, as the first release, and as VCD's copies. LLaVA, OPERA and InternVL keep the
    first release. Its random split has 2,910 questions, and after "an" it says "imange" for image. VCD's copies are the official
    files, with the adversarial split in the first release's spelling.
    """
    pictures = {str(image).rsplit("/", 1)[-1] for rows in splits.values() for image in rows["images"]}
    sizes = {name: len(rows["labels"]) for name, rows in splits.items()}
    if not set(sizes.values()) <= {FULL_SPLIT, OLD_RANDOM_SPLIT}:
        return f"none of the published sets: {', '.join(f'{name} {n}' for name, n in sizes.items())} questions"
    if OLD_RANDOM_SPLIT in sizes.values():
        return "COCO, first release (LLaVA, OPERA, InternVL): its random split has 2,910 questions"
    if not all(re.fullmatch(r"COCO_val2014_\d{12}(?:\.jpg)?", name) for name in pictures):
        return (
            "GQA's pictures"
            if all(re.fullmatch(r"\d+(?:\.jpg)?", name) for name in pictures)
            else "pictures are not COCO's val2014"
        )
    asked = {
        m.group(1)
        for rows in splits.values()
        for q in rows["questions"]
        if (m := re.search(r"is there an? (.+?) in the ima", q.lower()))
    }
    if not asked <= coco_names():
        return "COCO's pictures, but names beyond COCO's 80 objects: A-OKVQA's set"
    if FIRST_PICTURE not in {name.removesuffix(".jpg") for name in pictures}:
        return "COCO's pictures and names, but not the 500 pictures of the published files"
    old = [name for name, rows in splits.items() if any("imange" in str(q).lower() for q in rows["questions"])]
    if not old:
        return "COCO, today's official files (VCD's random and popular splits are the same)"
    if len(splits) > 1 and old == ["adversarial"]:
        return "COCO, VCD's copies: official files, but the adversarial split in the first release's spelling"
    if old == ["adversarial"]:
        return "COCO, adversarial split in the first release's spelling: LLaVA's, OPERA's or VCD's, not told apart"
    return "COCO, first release's spelling (LLaVA, OPERA, InternVL)"


def coco_names() -> set[str]:
    """COCO's 80 objects."""
    return {line.split(",")[0].strip() for line in COCO.read_text().splitlines() if line.strip()}


def provenance(labels: Sequence[str], images: Sequence, questions: Sequence[str]) -> dict:
    """Which POPE this is, with warnings for what cannot be set beside published numbers.

    `imange` counts questions that say "imange", a slip of the public builder (it replaced every "a" by "an").
    """
    misspelt = sum("imange" in question.lower() for question in questions)
    old = len(labels) == OLD_RANDOM_SPLIT
    warnings = []
    if old:
        warnings.append("2,910 questions: the old random split, not comparable with scores on the 3,000 of today's")
    if misspelt:
        warnings.append(f'{misspelt} questions say "imange" for "image"; a model asked in right English scores differently')
    return {
        "split_size": len(labels),
        "images": len(set(images)),
        "positives": list(labels).count("yes"),
        "imange": misspelt,
        "old_random_split": old,
        "comparable_with_published": len(labels) == FULL_SPLIT,
        "warnings": warnings,
    }
