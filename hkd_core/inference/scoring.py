"""Answers scored from one forward pass: the log-probability of every choice after the prompt, batched by length."""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from hkd_core.errors import UserError
from hkd_core.models.vlm import VLM, Encoded, distinct_pictures, encode_all, to_device


def encode_examples(vlm: VLM, examples: Sequence[dict]) -> list[Encoded]:
    """Each example's picture as the model takes it; a picture that many examples share is encoded once."""
    pictures, places = distinct_pictures(examples)
    encoded = encode_all({"": vlm}, pictures)[""]
    return [encoded[place] for place in places]


def by_length(rows: Sequence[Sequence[int]], batch_size: int) -> list[list[int]]:
    """Indices of `rows` in batches of like length, so that little is padded."""
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


@torch.no_grad()
def answer_logits(
    vlm: VLM, prompts: Sequence[str], pictures: Sequence[Encoded], *, batch_size: int = 128, title: str = ""
) -> Tensor:
    """[N, V] float32 logits of the first answer token after each prompt about each picture."""
    rows = [vlm.suffix(prompt) for prompt in prompts]
    found = torch.empty(len(rows), vlm.head.shape[0])
    for batch in tqdm(by_length(rows, batch_size), desc=title or "scoring", unit="batch", leave=False, disable=not title):
        inputs = vlm.inputs([pictures[i] for i in batch], [rows[i] for i in batch])
        last = inputs["attention_mask"].sum(1) - 1
        hidden = vlm.hidden(to_device(inputs, vlm.device)).last_hidden_state
        hidden = hidden[torch.arange(len(batch)), last.to(hidden.device)]
        found[batch] = (hidden.float() @ vlm.head.float().T).cpu()
    return found


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
    progress: bool = False,
) -> list[list[float]]:
    """One list of log-probabilities per example, one per choice: log p(choice tokens | picture, prompt).

    An example has `image` (unless `pictures` brings it encoded), `prompt` and `choices`; choices may be of any length.
    One forward pass scores all choices of one token; longer ones take a row each.
    """
    pictures = pictures if pictures is not None else encode_examples(vlm, examples)
    rows: list[tuple[int, list[int], list[int]]] = []  # example, prompt tokens, choice tokens but the last
    choices = [choice_tokens(vlm, example["prompt"], example["choices"]) for example in examples]
    for i, example in enumerate(examples):
        prompt = vlm.suffix(example["prompt"])
        starts = {tuple(tokens[:-1]) for tokens in choices[i]}
        rows += [(i, prompt, list(start)) for start in sorted(starts)]
    logp: dict[tuple[int, tuple[int, ...]], Tensor] = {}
    batches = by_length([prompt + start for _, prompt, start in rows], batch_size)
    for batch in tqdm(batches, desc="scoring", unit="batch", leave=False, disable=not progress):
        chosen = [rows[k] for k in batch]
        inputs = vlm.inputs([pictures[i] for i, _, _ in chosen], [prompt + start for _, prompt, start in chosen])
        hidden = vlm.hidden(to_device(inputs, vlm.device)).last_hidden_state
        for n, (i, prompt, start) in enumerate(chosen):
            first = len(pictures[i].prefix) + len(prompt) - 1
            states = hidden[n, first : first + len(start) + 1].float()
            logp[i, tuple(start)] = (states @ vlm.head.float().T).log_softmax(-1).cpu()
    return [
        [float(sum(logp[i, tuple(t[:-1])][k, token] for k, token in enumerate(t))) for t in tokens]
        for i, tokens in enumerate(choices)
    ]
