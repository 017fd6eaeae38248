"""AMBER's discriminative part (arXiv 2311.07397): yes-no questions about existence, attributes and relations.

Its positive class is "No", so F1 says how well hallucinated questions are refused. An answerer that always says no scores 79.7, so
the degenerate rows belong beside every score. An answer counts if it is "Yes" or "No" as published; POPE's strict rule reads it
here (`replies.yes_no`), and what is neither is wrong.
"""

from collections.abc import Collection, Sequence

from hkd_core.evaluation.replies import yes_no

# The three dimensions. Each has a separate query file.
DIMENSIONS = {"existence": ("existence",), "attribute": ("state", "number", "action"), "relation": ("relation",)}
# AMBER's names of types -> the names of its tables.
TYPES = {
    "discriminative-hallucination": "existence",
    "discriminative-attribute-state": "state",
    "discriminative-attribute-number": "number",
    "discriminative-attribute-action": "action",
    "discriminative-relation": "relation",
    "relation": "relation",
}


def scores(truths: Sequence[str], answers: Sequence[str | None]) -> dict:
    """truths: "yes" or "no"; answers: the same or None. In percent; precision, recall and F1 of "no"."""
    pairs = list(zip(truths, answers, strict=True))
    answered, there, hits = (
        sum(test(t, a) for t, a in pairs) for test in (lambda t, a: a == "no", lambda t, a: t == "no", lambda t, a: t == a == "no")
    )
    return {
        "n": len(pairs),
        "accuracy": 100 * sum(t == a for t, a in pairs) / len(pairs),
        "precision": 100 * hits / max(answered, 1),
        "recall": 100 * hits / max(there, 1),
        "f1": 200 * hits / max(answered + there, 1),
        "unparsed": sum(a is None for a in answers),
    }


def evaluate(truths: Sequence[str], texts: Sequence[str], types: Sequence[str]) -> dict:
    """Scores of all questions, of each type, of the three attributes together, and of the two degenerate answerers."""
    answers = [yes_no(text) for text in texts]

    def of(chosen: Sequence[str]) -> dict:
        rows = [k for k, kind in enumerate(types) if kind in chosen]
        return scores([truths[k] for k in rows], [answers[k] for k in rows])

    kinds = {kind: of([kind]) for kind in sorted(set(types))}
    attributes = [kind for kind in ("state", "number", "action") if kind in kinds]
    if attributes:
        kinds["attribute"] = of(attributes)
    always = {f"all_{word}": scores(truths, [word] * len(truths)) for word in ("yes", "no")}
    return scores(truths, answers) | {"types": kinds, "degenerate": always}


def verdicts(keys: Sequence[str], truths: Sequence[str], texts: Sequence[str], types: Sequence[str]) -> list[dict]:
    """One row a question: what it is, what was answered and read ("" for unparsed), and whether it is right."""
    rows = []
    for key, truth, text, kind in zip(keys, truths, texts, types, strict=True):
        reading = yes_no(text)
        rows.append({"id": key, "type": kind, "truth": truth, "answer": text, "read": reading or "", "right": reading == truth})
    return rows


def answered_dimensions(types: Sequence[str], answered: Collection[int]) -> list[str]:
    """The dimensions of which any question is answered. types: of all questions; answered: which of them have an answer."""
    return [name for name, kinds in DIMENSIONS.items() if any(types[place] in kinds for place in answered)]
