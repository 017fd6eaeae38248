"""Training written out in float64 with plain torch, from the methods' equations: what the library's functions are compared with.

Of the library it uses the tokenised batches and their order, which tests of their own cover.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor
from torch.nn import functional as F

from hkd_core.models import VLM
from hkd_core.training.examples import TrainingSet
from hkd_core.training.trainer import shuffled

Losses = dict[str, tuple[Tensor, float]]  # name -> (mean, weight)


def doubled(vlm: VLM) -> VLM:
    """A copy in float64."""
    return VLM(deepcopy(vlm.model).double(), vlm.processor, vlm.name)


def logits_at_answers(vlm: VLM, data: TrainingSet, name: str, indices: Sequence[int]) -> tuple[Tensor, Tensor, Tensor]:
    """([N, V] float64 logits, [N] tokens, [N] whose) where an answer token comes next: every example read alone."""
    logits, tokens, owner = [], [], []
    for i in indices:
        picture, length = data.pictures[name][data.examples[i]["image_id"]], data.prompts[i]
        batch = vlm.inputs([picture], [data.suffixes[i]])
        batch["features"] = [picture.features.double()]
        hidden = vlm.hidden(batch).last_hidden_state[0]
        answer = data.suffixes[i][length:]
        start = len(picture.prefix) + length - 1
        logits.append(hidden[start : start + len(answer)] @ vlm.head.T)
        tokens += answer
        owner += [i] * len(answer)
    return torch.cat(logits), torch.tensor(tokens), torch.tensor(owner)


def over_choices(vlm: VLM, data: TrainingSet, name: str, indices: Sequence[int]) -> list[Tensor]:
    """For each example the float64 logits of its choices' first tokens, where its answer begins."""
    logits, _, owner = logits_at_answers(vlm, data, name, indices)
    found = []
    for i in indices:
        row, prompt = data.examples[i], data.suffixes[i][: data.prompts[i]]
        starts = [vlm.suffix(row["prompt"], choice)[len(prompt)] for choice in row["choices"]]
        found.append(logits[owner.tolist().index(i)][starts])
    return found


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Summed over everything: KL(p || q) of log-probabilities."""
    return (p.exp() * (p - q)).sum()


def soft_term(student: Sequence[Tensor], teacher: Sequence[Tensor], temperature: float, *, reverse: bool = False) -> Tensor:
    """T^2 KL(teacher || student), or the reverse, over each example's choices, a mean over examples."""
    pairs = [((t / temperature).log_softmax(-1), (s / temperature).log_softmax(-1)) for s, t in zip(student, teacher, strict=True)]
    return temperature**2 * torch.stack([kl(s, t) if reverse else kl(t, s) for t, s in pairs]).mean()


def histories(
    vlm: VLM,
    losses: Callable[[VLM, list[int]], Losses],
    *,
    data: TrainingSet,
    batch_size: int,
    rates: Sequence[float],
    seed: int,
) -> Mapping[str, list[float]]:
    """name -> its mean at every step, while a float64 copy of the model learns the weighted sum with AdamW at these learning rates."""
    vlm = doubled(vlm)
    language = vlm.model.model.language_model
    vlm.model.requires_grad_(False)
    learned = [p.requires_grad_() for p in language.parameters()]
    groups = [
        {"params": [p for p in learned if p.ndim > 1], "weight_decay": 0.01},
        {"params": [p for p in learned if p.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98))
    found: dict[str, list[float]] = {}
    for indices, rate in zip(shuffled(len(data), batch_size, len(rates), seed, data.lengths), rates, strict=True):
        terms = losses(vlm, indices)
        for name, (value, _) in terms.items():
            found.setdefault(name, []).append(float(value.detach()))
        optimizer.zero_grad()
        sum(weight * value for value, weight in terms.values()).backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
    return found


def label_term(vlm: VLM, data: TrainingSet, name: str, indices: Sequence[int]) -> Tensor:
    """Mean cross-entropy per answer token."""
    logits, tokens, _ = logits_at_answers(vlm, data, name, indices)
    return F.cross_entropy(logits, tokens)
