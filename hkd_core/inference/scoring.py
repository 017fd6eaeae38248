"""Answers scored from one forward pass: the log-probability of every choice after the prompt, batched by length."""

from collections.abc import Sequence

import torch
from torch import Tensor

from hkd_core.common.errors import UserError
from hkd_core.inference.contrast import isolate
from hkd_core.inference.shared_prefix import last_states
from hkd_core.models.vlm import VLM, Encoded, distinct_pictures, encode_all


def encode_examples(vlm: VLM, examples: Sequence[dict]) -> list[Encoded]:
    """Each example's picture as the model takes it; a picture that many examples share is encoded once."""
    pictures, places = distinct_pictures(examples)
    encoded = encode_all({"": vlm}, pictures)[""]
    return [encoded[place] for place in places]


@torch.no_grad()
def token_logits(
    vlm: VLM,
    suffixes: Sequence[list[int]],
    keep: Sequence[int],
    pictures: Sequence[Encoded],
    *,
    batch_size: int = 128,
    title: str = "",
) -> list[Tensor]:
    """[keep[i], V] float32 logits at the last positions of each suffix behind its picture; what is asked twice is computed once."""
    keys = [(id(picture), tuple(suffix), n) for picture, suffix, n in zip(pictures, suffixes, keep, strict=True)]
    place = {key: n for n, key in enumerate(dict.fromkeys(keys))}
    first = dict(zip(reversed(keys), range(len(keys) - 1, -1, -1), strict=True))
    rows = [first[key] for key in place]
    asked = [pictures[i] for i in rows], [suffixes[i] for i in rows], [keep[i] for i in rows]
    found: list[Tensor] = [torch.empty(0)] * len(rows)
    for n, states in last_states(vlm, *asked, batch_size=batch_size, title=title):
        found[n] = vlm.logits(states).cpu()
    return [found[place[key]] for key in keys]


def view_logits(
    vlm: VLM, suffixes: Sequence[list[int]], keep: Sequence[int], views: Sequence[Sequence[Encoded]], view: str, *, title: str = ""
) -> list[Tensor]:
    """[keep[i], V]: the prior of each suffix under its views (`contrast.isolate`); views: one list of pictures for each view."""
    several = len(views)
    flat = token_logits(vlm, list(suffixes) * several, list(keep) * several, [p for shown in views for p in shown], title=title)
    return [isolate(flat[i :: len(suffixes)], view) for i in range(len(suffixes))]


def answer_logits(vlm: VLM, prompts: Sequence[str], pictures: Sequence[Encoded], *, title: str = "") -> Tensor:
    """[N, V] float32 logits of the first answer token after each prompt about each picture."""
    rows = [vlm.suffix(prompt) for prompt in prompts]
    return torch.cat(token_logits(vlm, rows, [1] * len(rows), pictures, title=title))


def prior_logits(vlm: VLM, prompts: Sequence[str], views: Sequence[Sequence[Encoded]], view: str, *, title: str = "") -> Tensor:
    """[N, V] as `answer_logits`, but under distorted views, combined."""
    rows = [vlm.suffix(prompt) for prompt in prompts]
    return torch.cat(view_logits(vlm, rows, [1] * len(rows), views, view, title=title))


def choice_tokens(vlm: VLM, prompt: str, choices: Sequence[str]) -> list[list[int]]:
    """The tokens each choice adds behind the prompt. Raises UserError for a choice without tokens or no choices."""
    bare = vlm.suffix(prompt)
    found = [vlm.suffix(prompt, choice)[len(bare) :] for choice in choices]
    if not found or not all(found):
        raise UserError(f'choices of "{prompt}": expected at least one, each with at least one token, got {list(choices)}')
    return found


@torch.no_grad()
def score_choices(
    vlm: VLM,
    examples: Sequence[dict],
    *,
    pictures: Sequence[Encoded] | None = None,
    batch_size: int = 128,
    title: str = "",
) -> list[list[float]]:
    """One list of log-probabilities per example, one per choice: log p(choice tokens | picture, prompt).

    An example has `image` (unless `pictures` brings it encoded), `prompt` and `choices`; choices may be of any length.
    One forward pass scores all choices of one token; longer ones take a row each. A picture that several rows share is read once.
    """
    pictures = pictures if pictures is not None else encode_examples(vlm, examples)
    choices = [choice_tokens(vlm, example["prompt"], example["choices"]) for example in examples]
    rows: list[tuple[int, tuple[int, ...]]] = []  # example, choice tokens but the last
    for i, tokens in enumerate(choices):
        rows += [(i, start) for start in sorted({tuple(t[:-1]) for t in tokens})]
    suffixes = [vlm.suffix(examples[i]["prompt"]) + list(start) for i, start in rows]
    keep = [len(start) + 1 for _, start in rows]
    logp: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    for k, states in last_states(vlm, [pictures[i] for i, _ in rows], suffixes, keep, batch_size=batch_size, title=title):
        logp[rows[k]] = vlm.logits(states).log_softmax(-1).cpu()
    return [
        [float(sum(logp[i, tuple(t[:-1])][k, token] for k, token in enumerate(t))) for t in tokens]
        for i, tokens in enumerate(choices)
    ]
