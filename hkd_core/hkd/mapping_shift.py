"""Mapping shift-enhanced inference (MSI): the mapping from answer symbols to contents is shifted, the answers mapped back and averaged.

Options are rotated through the letters; a yes/no question is also asked the other way round. What bias is left is a content-free
prior, what is said of each kind of content without a picture, and one scalar, fitted on validation data only. Our reading of
HKD4VLM (papers' abstract states the name).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hkd_core.common.errors import UserError
from hkd_core.data.wording import Wording


def shifted(example: dict, wording: Wording) -> list[tuple[dict, list[int]]]:
    """[(variant, places)]: choice k of the example is choice places[k] of the variant. The first is the example itself.

    Lettered options are rotated cyclically; a yes/no question with a known fact is negated; others stay alone. Raises UserError,
    naming the example, where its prompt does not list its options as the wording says: nothing would be shifted.
    """
    options = example["meta"].get("options")
    if options:
        listed = wording.list_options(options)
        if listed is None or listed not in example["prompt"]:
            raise UserError(
                f'{example["image_id"]}: mapping shift: expected the options as "{listed}" in the prompt, got "{example["prompt"]}"'
            )
        found = []
        for turn in range(len(options)):
            rotated = options[turn:] + options[:turn]
            places = [(k - turn) % len(options) for k in range(len(options))]
            found.append((example | {"prompt": example["prompt"].replace(listed, wording.list_options(rotated))}, places))
        return found
    same = (example, list(range(len(example["choices"]))))
    opposite = wording.negate(example) if len(example["choices"]) == 2 else None
    return [same] if opposite is None else [same, (example | {"prompt": opposite}, [1, 0])]


def content_kinds(example: dict, wording: Wording) -> list[int]:
    """A class for each choice, by its content where contents recur, else by its place (see `Wording.content_kinds`)."""
    return wording.content_kinds(example["meta"].get("options", example["choices"]))


def average(variants: Sequence[tuple[dict, list[int]]], scores: Sequence[Sequence[float]]) -> np.ndarray:
    """[choices] mean over variants of the normalised log-probabilities, mapped back to the example's own choices."""
    total = np.zeros(len(scores[0]))
    for (_, places), row in zip(variants, scores, strict=True):
        logp = np.asarray(row) - np.logaddexp.reduce(row)
        total += logp[places]
    return total / len(variants)


@dataclass(frozen=True)
class Prior:
    """What is taken off: `strength` times the log prior of a choice's content kind."""

    logp: tuple[float, ...]
    strength: float

    def remove(self, scores: np.ndarray, kinds: Sequence[int]) -> np.ndarray:
        known = [self.logp[kind] if kind < len(self.logp) else 0.0 for kind in kinds]  # of a kind never seen nothing is known
        return scores - self.strength * np.asarray(known)


def fit_prior(
    free: Sequence[np.ndarray], scores: Sequence[np.ndarray], kinds: Sequence[Sequence[int]], right: Sequence[int]
) -> Prior:
    """Fit on validation: the prior is the mean probability of each kind, its strength the one of a grid with the best accuracy.

    free: the same examples' scores [choices] without a picture; scores: with it. Strength 0 (plain averaging) wins ties, so that
    nothing is shifted without a reason.
    """
    sums, counts = np.zeros((2, 1 + max(k for kind in kinds for k in kind)))
    for row, kind in zip(free, kinds, strict=True):
        for p, k in zip(np.exp(row - np.logaddexp.reduce(row)), kind, strict=True):
            sums[k] += p
            counts[k] += 1
    used = counts > 0
    logp = np.where(used, np.log(np.maximum(sums, 1e-9) / np.maximum(counts, 1)), 0.0)
    best = (-1.0, 0.0)
    for strength in (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5):
        prior = Prior(tuple(logp), strength)
        hits = [int(np.argmax(prior.remove(row, kind)) == r) for row, kind, r in zip(scores, kinds, right, strict=True)]
        if np.mean(hits) > best[0]:
            best = (float(np.mean(hits)), strength)
    return Prior(tuple(logp), best[1])
