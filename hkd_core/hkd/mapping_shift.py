"""Mapping shift-enhanced inference (MSI): shift the mapping from answer symbols to contents, map the answers back, average them.

Lettered options move through the letters; a yes/no question is also asked for the opposite. A mapping sigma says
at which symbol each content stands, and so makes a prompt q_sigma. With n mappings, the score of a content u is

    s(u) = 1/n sum_sigma log p(sigma(u) | q_sigma)  -  strength * log prior(class of u)

The prior is the mean probability of each class of contents when there is no picture. Prior and strength are fitted on validation
examples alone. HKD4VLM's abstract states the name; everything here is our reading.
"""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hkd_core.common.errors import UserError
from hkd_core.common.files import read_json, write_json
from hkd_core.data.wording import Wording, options_of, rotations
from hkd_core.inference.scoring import encode_examples, score_choices
from hkd_core.models.vlm import VLM, Encoded

STRENGTHS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5)


def shifted(example: dict, wording: Wording) -> list[tuple[dict, list[int]]]:
    """[(variant, places)]: choice k of the example is choice places[k] of the variant. The first is the example itself.

    Lettered options are rotated cyclically. A yes/no question is negated where the wording can do that. Others stay alone.
    Raises UserError as `rotations` does: nothing would be shifted.
    """
    choices = range(len(example["choices"]))
    rotated = rotations(example, wording)
    if len(rotated) > 1:
        return [(variant, [(k - turn) % len(choices) for k in choices]) for turn, variant in enumerate(rotated)]
    same = (example, list(choices))
    opposite = wording.negate(example) if len(choices) == 2 else None
    return [same] if opposite is None else [same, (example | {"prompt": opposite}, [1, 0])]


def content_classes(example: dict, wording: Wording) -> list[int]:
    """A class for each choice, by its content where contents recur, else by its place (see `Wording.content_classes`)."""
    return wording.content_classes(options_of(example) or example["choices"])


def average(variants: Sequence[tuple[dict, list[int]]], scores: Sequence[Sequence[float]]) -> np.ndarray:
    """[choices] mean over variants of the normalised log-probabilities, mapped back to the example's own choices."""
    total = np.zeros(len(scores[0]))
    for (_, places), row in zip(variants, scores, strict=True):
        logp = np.asarray(row) - np.logaddexp.reduce(row)
        total += logp[places]
    return total / len(variants)


@dataclass(frozen=True)
class Prior:
    """What is subtracted: `strength` times the log prior of a choice's content kind."""

    logp: tuple[float, ...]
    strength: float

    def remove(self, scores: np.ndarray, kinds: Sequence[int]) -> np.ndarray:
        known = [self.logp[kind] if kind < len(self.logp) else 0.0 for kind in kinds]  # nothing is known of a kind never seen
        return scores - self.strength * np.asarray(known)


def fit_prior(
    free: Sequence[np.ndarray], scores: Sequence[np.ndarray], kinds: Sequence[Sequence[int]], right: Sequence[int]
) -> Prior:
    """Fit on validation: the prior is the mean probability of each kind, its strength the one of STRENGTHS with the best accuracy.

    free: the same examples' scores [choices] without a picture; scores: with it; kinds: a class for each choice; right: the place of
    the answer. Strength 0 (plain averaging) wins ties, so that nothing is shifted without a reason.
    """
    sums, counts = np.zeros((2, 1 + max(k for kind in kinds for k in kind)))
    for row, kind in zip(free, kinds, strict=True):
        for p, k in zip(np.exp(row - np.logaddexp.reduce(row)), kind, strict=True):
            sums[k] += p
            counts[k] += 1
    used = counts > 0
    logp = np.where(used, np.log(np.maximum(sums, 1e-9) / np.maximum(counts, 1)), 0.0)
    best = (-1.0, 0.0)
    for strength in STRENGTHS:
        prior = Prior(tuple(logp.tolist()), strength)
        hits = [int(np.argmax(prior.remove(row, kind)) == r) for row, kind, r in zip(scores, kinds, right, strict=True)]
        if np.mean(hits) > best[0]:
            best = (float(np.mean(hits)), strength)
    return Prior(tuple(logp.tolist()), best[1])


def shifted_scores(vlm: VLM, examples: Sequence[dict], pictures: Sequence[Encoded], wording: Wording) -> list[np.ndarray]:
    """For each example [choices]: the mean log-probabilities over its shifted prompts. All prompts are scored in one batched pass.

    pictures: what the model sees, one an example.
    """
    variants = [shifted(row, wording) for row in examples]
    seen = [picture for several, picture in zip(variants, pictures, strict=True) for _ in several]
    scores = iter(score_choices(vlm, [variant for several in variants for variant, _ in several], pictures=seen, title="scoring"))
    return [average(several, [next(scores) for _ in several]) for several in variants]


def limits(examples: Sequence[dict], wording: Wording) -> str:
    """What mapping shift cannot do for these examples, in one sentence; "" if it can do all."""
    alone = sum(len(shifted(row, wording)) == 1 for row in examples)
    if not alone:
        return ""
    return (
        f"mapping shift: {alone} of {len(examples)} examples can be asked in one way only, since the wording neither lists their options "
        "nor negates their question; only the prior is removed from these"
    )


@dataclass(frozen=True)
class MappingShift:
    """A model that answers under mapping shift. Make one with `fit`.

    priors: choices -> what is subtracted, fitted for examples with these choices; others are averaged only. limits: what could not be done
    for the validation examples, in one sentence, or "".
    """

    vlm: VLM
    wording: Wording = field(default_factory=Wording)
    priors: Mapping[tuple[str, ...], Prior] = field(default_factory=dict)
    limits: str = ""

    @classmethod
    def fit(cls, vlm: VLM, examples: Sequence[dict], wording: Wording | None = None) -> "MappingShift":
        """Fit the priors on validation examples: dicts with `image`, `prompt`, `choices` and `answer`.

        wording: how the dataset words its questions. Without one, or where it cannot ask an example in another way, only the prior is
        removed; a warning and `limits` say so. Raises UserError for an example whose answer is none of its choices, and for none at all.
        """
        wording = wording or Wording()
        if not examples:
            raise UserError("mapping shift: expected validation examples, got none")
        for i, row in enumerate(examples):
            if row.get("answer") not in row["choices"]:
                got = row.get("answer")
                raise UserError(
                    f'mapping shift: validation example {i}: expected an answer among {list(row["choices"])}, got "{got}"'
                )
        if missing := limits(examples, wording):
            warnings.warn(missing, stacklevel=2)
        pictures = encode_examples(vlm, examples)
        nothing = [vlm.without_picture(pictures[0])] * len(examples)
        scores, free = (shifted_scores(vlm, examples, seen, wording) for seen in (pictures, nothing))
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, row in enumerate(examples):
            groups.setdefault(tuple(row["choices"]), []).append(i)
        priors = {}
        for choices, members in groups.items():
            kinds = [content_classes(examples[i], wording) for i in members]
            right = [choices.index(examples[i]["answer"]) for i in members]
            priors[choices] = fit_prior([free[i] for i in members], [scores[i] for i in members], kinds, right)
        return cls(vlm, wording, priors, missing)

    def scores(self, examples: Sequence[dict]) -> list[np.ndarray]:
        """For each example [choices]: the score of each choice. An example has `image`, `prompt` and `choices`."""
        if not examples:
            return []
        found = shifted_scores(self.vlm, examples, encode_examples(self.vlm, examples), self.wording)
        priors = [self.priors.get(tuple(row["choices"]), Prior((), 0.0)) for row in examples]
        kinds = [content_classes(row, self.wording) for row in examples]
        return [prior.remove(row, kind) for prior, row, kind in zip(priors, found, kinds, strict=True)]

    def answer(self, examples: Sequence[dict]) -> list[str]:
        """The choice with the highest score, for each example."""
        return [row["choices"][int(np.argmax(s))] for row, s in zip(examples, self.scores(examples), strict=True)]

    def save(self, path: str | Path) -> Path:
        """Write the priors as JSON; model and wording are not part of it."""
        rows = [{"choices": list(choices), **asdict(prior)} for choices, prior in self.priors.items()]
        return write_json(Path(path), {"priors": rows, "limits": self.limits})

    @classmethod
    def load(cls, path: str | Path, vlm: VLM, wording: Wording | None = None) -> "MappingShift":
        """Read what `save` wrote, for the same model and wording. Raises UserError naming a file that is not one."""
        content: Any = read_json(Path(path))
        try:
            rows = content["priors"]
            priors = {tuple(row["choices"]): Prior(tuple(row["logp"]), row["strength"]) for row in rows}
            return cls(vlm, wording or Wording(), priors, content["limits"])
        except (KeyError, TypeError) as error:
            raise UserError(f"{path}: not a saved mapping shift: expected the keys priors and limits") from error
