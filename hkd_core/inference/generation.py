"""Free text from a model: batched, greedy or sampled, plain or contrastive."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, LogitsProcessorList

from hkd_core.inference.contrast import isolate, purify
from hkd_core.models.vlm import VLM, Encoded, to_device
from hkd_core.progress import progress


class ContrastiveProcessor(LogitsProcessor):
    """Purifies the logits of each step against the same text read under distorted views (a further pass a token each)."""

    def __init__(self, vlm: VLM, views: Sequence[dict], kind: str, *, alpha: float, beta: float):
        self.vlm, self.views, self.kind, self.alpha, self.beta = vlm, views, kind, alpha, beta

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        distorted = isolate([self.logits(view, input_ids) for view in self.views], self.kind)
        return purify(scores.float(), distorted, alpha=self.alpha, beta=self.beta)

    def logits(self, view: dict, input_ids: Tensor) -> Tensor:
        """[B, V] for the next token under one view."""
        mask = view["attention_mask"]
        longer = mask.new_ones(len(mask), input_ids.shape[1] - mask.shape[1])
        inputs = view | {"input_ids": input_ids, "attention_mask": torch.cat([mask, longer], 1)}
        return self.vlm.hidden(inputs).last_hidden_state[:, -1].float() @ self.vlm.head.float().T


@torch.no_grad()
def generate(
    vlm: VLM,
    prompts: Sequence[str],
    pictures: Sequence[Encoded],
    *,
    max_new_tokens: int = 40,
    temperature: float = 0.0,
    seed: int = 0,
    contrast: Sequence[Sequence[Encoded]] | None = None,
    kind: str = "",
    alpha: float = 1.0,
    beta: float = 0.1,
    batch_size: int = 128,
    title: str = "",
) -> list[str]:
    """One answer per prompt. temperature 0: greedy; contrast: distorted views of the pictures, and
    their kind, for contrastive decoding."""
    torch.manual_seed(seed)
    answers: list[str] = []
    starts = range(0, len(prompts), batch_size)
    for i in progress(starts, desc=title or "generating", unit="batch", leave=False, disable=not title):
        part = slice(i, i + batch_size)
        suffixes = [vlm.suffix(prompt) for prompt in prompts[part]]
        inputs = to_device(vlm.inputs(pictures[part], suffixes, left=True), vlm.device)
        processors = LogitsProcessorList()
        if contrast is not None:
            views = [to_device(vlm.inputs(view[part], suffixes, left=True), vlm.device) for view in contrast]
            processors.append(ContrastiveProcessor(vlm, views, kind, alpha=alpha, beta=beta))
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        pad = vlm.tokenizer.pad_token_id if vlm.tokenizer.pad_token_id is not None else vlm.tokenizer.eos_token_id
        found = vlm.model.generate(
            **vlm.arguments(inputs),
            max_new_tokens=max_new_tokens,
            logits_processor=processors,
            pad_token_id=pad,
            eos_token_id=vlm.tokenizer.eos_token_id,
            **sampling,
        )
        new = found[:, inputs["input_ids"].shape[1] :]
        answers += [tidy(text) for text in vlm.tokenizer.batch_decode(new, skip_special_tokens=True)]
    return answers


def tidy(text: str) -> str:
    """No space before punctuation, none around the whole."""
    for mark in ".,?":
        text = text.replace(f" {mark}", mark)
    return text.strip()
