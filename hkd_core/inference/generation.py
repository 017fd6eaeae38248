"""Free text from a model: batched, greedy or sampled, plain or with a processor of logits such as `contrastive`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import Cache, LogitsProcessor, LogitsProcessorList

from hkd_core.common.progress import progress
from hkd_core.inference.contrast import isolate, purify
from hkd_core.models.families import plain_generation
from hkd_core.models.vlm import VLM, Encoded, to_device


@dataclass(frozen=True)
class Batch:
    """One batch of `generate`.

    rows: which of the prompts. suffixes: their token ids after the picture. length: tokens before the answer.
    """

    rows: slice
    suffixes: list[list[int]]
    length: int


ProcessorFor = Callable[[Batch], LogitsProcessor]  # makes the processor of one batch


class ContrastiveProcessor(LogitsProcessor):
    """Purifies each step's logits against the same text read under distorted views.

    All views are one batch with their own cache, so a token costs one pass for the picture and one for its views.
    """

    def __init__(
        self,
        vlm: VLM,
        views: Sequence[Sequence[Encoded]],
        suffixes: Sequence[list[int]],
        view: str,
        *,
        alpha: float,
        cutoff: float,
    ):
        self.vlm, self.count, self.view, self.alpha, self.cutoff = vlm, len(views), view, alpha, cutoff
        rows = vlm.inputs([picture for shown in views for picture in shown], list(suffixes) * len(views), left=True)
        self.rows = to_device(rows, vlm.device)
        self.mask = self.rows["attention_mask"]
        self.cache: Cache | None = None
        self.rope_deltas: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        states = self.read(input_ids[:, -1:].repeat(self.count, 1))
        distorted = isolate(self.vlm.logits(states).chunk(self.count), self.view)
        return purify(scores.float(), distorted, alpha=self.alpha, cutoff=self.cutoff)

    def read(self, latest: Tensor) -> Tensor:
        """[views * B, H] states before the next token: first of the whole prompt, then of the `latest` token [views * B, 1]."""
        model = self.vlm.core.base_model
        # Families with positions in three dimensions remember an offset for each row; the clean pass has its own.
        others = getattr(model, "rope_deltas", None)
        if self.cache is None:
            inputs = self.vlm.arguments(self.rows)
        else:
            self.mask = torch.cat([self.mask, self.mask.new_ones(len(self.mask), 1)], 1)
            inputs = {"input_ids": latest, "attention_mask": self.mask, "past_key_values": self.cache}
            if self.rope_deltas is not None:
                # Left to itself the model would take positions of all tokens so far for the latest one's.
                inputs["position_ids"] = (self.mask.sum(1, keepdim=True) - 1 + self.rope_deltas).expand(3, -1, -1)
        if hasattr(model, "rope_deltas"):
            model.rope_deltas = self.rope_deltas
        output = model(**inputs, use_cache=True)
        self.cache = output.past_key_values
        if hasattr(model, "rope_deltas"):
            self.rope_deltas, model.rope_deltas = model.rope_deltas, others  # type: ignore[assignment]
        return output.last_hidden_state[:, -1]


def contrastive(vlm: VLM, views: Sequence[Sequence[Encoded]], view: str, *, alpha: float, cutoff: float) -> ProcessorFor:
    """Contrastive decoding for `generate`: its answers purified, token by token (`purify`), of the prior under several views.

    views: for each view one picture a prompt; view: how they were made (one of `views.VIEWS`).
    Source: VCD (arXiv 2311.16922), with one view; several views are our choice.
    """

    def processor(batch: Batch) -> LogitsProcessor:
        shown = [pictures[batch.rows] for pictures in views]
        return ContrastiveProcessor(vlm, shown, batch.suffixes, view, alpha=alpha, cutoff=cutoff)

    return processor


@torch.no_grad()
def generate(
    vlm: VLM,
    prompts: Sequence[str],
    pictures: Sequence[Encoded],
    *,
    max_new_tokens: int = 40,
    temperature: float = 0.0,
    seed: int = 0,
    processor: ProcessorFor | None = None,
    batch_size: int = 128,
    title: str = "",
) -> list[str]:
    """One answer for each prompt about each picture. temperature 0: greedy.

    processor: makes what changes the next token's logits in one batch (`contrastive`, `seed.self_verifying`), or None.
    """
    torch.manual_seed(seed)
    answers: list[str] = []
    batches = range(0, len(prompts), batch_size)
    for i in progress(batches, desc=title or "generating", unit="batch", leave=False, disable=not title):
        part = slice(i, i + batch_size)
        suffixes = [vlm.suffix(prompt) for prompt in prompts[part]]
        inputs = to_device(vlm.inputs(pictures[part], suffixes, left=True), vlm.device)
        length = inputs["input_ids"].shape[1]
        processors = [processor(Batch(part, suffixes, length))] if processor else []
        sampling = {"do_sample": True, "temperature": temperature, "top_k": 0} if temperature else {"do_sample": False}
        pad = vlm.tokenizer.pad_token_id if vlm.tokenizer.pad_token_id is not None else vlm.tokenizer.eos_token_id
        with plain_generation(vlm.core):
            found = vlm.core.generate(
                **vlm.arguments(inputs),
                max_new_tokens=max_new_tokens,
                logits_processor=LogitsProcessorList(processors),
                pad_token_id=pad,
                eos_token_id=vlm.ends,
                **sampling,
            )
        answers += [tidy(text) for text in vlm.tokenizer.batch_decode(found[:, length:], skip_special_tokens=True)]
    return answers


def tidy(text: str) -> str:
    """No space before punctuation, none around the whole."""
    for mark in ".,?":
        text = text.replace(f" {mark}", mark)
    return text.strip()
