"""Identify: which words of a model's own text come from its prior and not from the picture.

The same text is read with the picture and with a view in which nothing can be seen. The hallucination score of a word is how little
its log-probability drops: log p(word | view) - log p(word | picture). Our reading of SEED's "identify".
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hkd_core.common.errors import UserError
from hkd_core.common.margins import auroc_interval
from hkd_core.inference.contrast import hallucination_score, isolate, plausible
from hkd_core.inference.views import FREE_TEXT_VIEWS, Features, with_ids
from hkd_core.models.vlm import VLM, Encoded, to_device
from hkd_core.training.examples import TrainingSet, answer_hidden, project

View = tuple[str, float]  # one of views.VIEWS, and its strength


@dataclass(frozen=True)
class TokenScores:
    """N answer tokens, read with the picture and under several views.

    words: their strings. owner: which example each belongs to. clean: [N, V] logits with the picture. scores: view -> [N].
    """

    words: list[str]
    owner: list[int]
    clean: Tensor  # [N, V]
    scores: dict[View, Tensor]  # [N] each


@torch.no_grad()
def read_answers(
    vlm: VLM, examples: Sequence[dict], features: Mapping[str, Mapping[str, Encoded]], *, batch_size: int = 128
) -> tuple[dict[str, Tensor], Tensor, list[int]]:
    """The logits at the answer tokens of the examples, read under each of several features.

    features: name -> image_id -> Encoded. Returns ({name: [N, V]}, ids [N] of the tokens, which example each belongs to [N]).
    An example with the answer "" has no answer tokens. Raises UserError where all are so.
    """
    answered = [k for k, row in enumerate(examples) if row["answer"]]
    if not answered:
        raise UserError("examples to be read: expected at least one with an answer, got none")
    data = TrainingSet(dict.fromkeys(features, vlm), with_ids([examples[k] for k in answered]), features)
    logits: dict[str, list[Tensor]] = {name: [] for name in features}
    tokens, owner = [], []
    for start in range(0, len(data), batch_size):
        batch = to_device(data.collate(range(start, min(start + batch_size, len(data)))), vlm.device)
        for name in features:
            logits[name].append(project(vlm, answer_hidden(vlm, batch, name)[0]).cpu())
        tokens.append(batch["labels"].cpu())
        owner += [answered[start + row] for row in batch["asked"].nonzero()[:, 0].tolist()]
    return {name: torch.cat(parts) for name, parts in logits.items()}, torch.cat(tokens), owner


def score_tokens(vlm: VLM, examples: Sequence[dict], features: Features, views: Sequence[View]) -> TokenScores:
    """The hallucination score of every answer token of the examples under each of the views.

    examples: prompt, choices ([] for free text) and answer, about the pictures of `features`.
    """
    views = [(view, strength) for view, strength in views]
    shown = {(*d, k): view for d in views for k, view in enumerate(features.under(*d)[:FREE_TEXT_VIEWS])}
    named = {"student": features.clean} | {str(key): view for key, view in shown.items()}
    logits, tokens, owner = read_answers(vlm, examples, named)
    priors = {d: isolate([logits[str(key)] for key in shown if key[:2] == d], d[0]) for d in views}
    scores = {d: hallucination_score(logits["student"], prior, tokens) for d, prior in priors.items()}
    return TokenScores(vlm.tokenizer.convert_ids_to_tokens(tokens.tolist()), owner, logits["student"], scores)


def auroc_of_views(
    found: TokenScores, places: Sequence[int], wrong: Sequence[bool], *, seed: int = 0
) -> dict[View, tuple[float, float, float]]:
    """View -> (AUROC, low, high): how well its score tells wrong words from right ones. 95 %, whole examples drawn.

    places: which of the answer tokens are judged, for instance the objects named. wrong: which of these are not there.
    One half means that the score knows nothing. Empty where all words are wrong, or all are right.
    """
    if not 0 < sum(wrong) < len(wrong):
        return {}
    owners = [found.owner[k] for k in places]
    return {d: auroc_interval(score[places].tolist(), wrong, owners, seed=seed) for d, score in found.scores.items()}


def void_space(
    vlm: VLM, examples: Sequence[dict], features: Mapping[str, Encoded], reference: Tensor, *, cutoff: float = 0.1
) -> dict[str, float]:
    """{"outside the plausible set": mean probability there, "entropy, nats": mean entropy} at the examples' answer tokens.

    reference: [N, V] logits of the model that says what is plausible: at least `cutoff` times its most probable token.
    SEED's abstract says that ordinary distillation leaves void space. This measure of it is our choice.
    """
    logits, *_ = read_answers(vlm, examples, {"student": features})
    p = logits["student"].softmax(-1)
    outside = float((p * ~plausible(reference, cutoff)).sum(-1).mean())
    entropy = float(-(p * p.clamp(min=1e-9).log()).sum(-1).mean())
    return {"outside the plausible set": round(outside, 4), "entropy, nats": round(entropy, 4)}
