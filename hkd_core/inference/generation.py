"""Free text from a model: batched, greedy or sampled, plain or contrastive."""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import Cache, LogitsProcessor, LogitsProcessorList

from hkd_core.common.progress import progress
from hkd_core.inference.contrast import isolate, purify
from hkd_core.models.vlm import VLM, Encoded, to_device
from hkd_core.seed.self_verification import reweight


class ContrastiveProcessor(LogitsProcessor):
    """Purifies the logits of each step against the same text read under distorted views.

    All views are one batch with a cache of its own, so that a token costs one pass over itself for the picture and one for its views.
    """

    def __init__(
        self,
        vlm: VLM,
        views: Sequence[Sequence[Encoded]],
        suffixes: Sequence[list[int]],
        kind: str,
        *,
        alpha: float,
        beta: float,
    ):
        self.vlm, self.count, self.kind, self.alpha, self.beta = vlm, len(views), kind, alpha, beta
        rows = vlm.inputs([picture for view in views for picture in view], list(suffixes) * len(views), left=True)
        self.rows = to_device(rows, vlm.device)
        self.mask = self.rows["attention_mask"]
        self.cache: Cache | None = None
        self.rope_deltas: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        states = self.read(input_ids[:, -1:].repeat(self.count, 1))
        distorted = isolate((states.float() @ self.vlm.head.float().T).chunk(self.count), self.kind)
        return purify(scores.float(), distorted, alpha=self.alpha, beta=self.beta)

    def read(self, latest: Tensor) -> Tensor:
        """[views * B, H] states that the next token follows: of the whole prompt at first, then of the `latest` token [views * B, 1]."""
        model = self.vlm.core.model
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
            self.rope_deltas, model.rope_deltas = model.rope_deltas, others
        return output.last_hidden_state[:, -1]


class EvidenceProcessor(LogitsProcessor):
    """Weighs each step's logits with the evidence [B, V] for each name; a name (its first token in `starts`) is said once."""

    def __init__(self, evidence: Tensor, starts: Tensor, prompt: int, *, beta: float):
        self.evidence, self.prompt, self.beta = evidence, prompt, beta
        self.named = torch.zeros(evidence.shape[1], dtype=torch.bool, device=evidence.device)
        self.named[starts.to(evidence.device)] = True

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        said = torch.zeros_like(scores, dtype=torch.bool).scatter(1, input_ids[:, self.prompt :], True) & self.named
        return reweight(scores.float(), self.evidence, said, beta=self.beta)


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
    evidence: Tensor | None = None,
    starts: Tensor | None = None,
    batch_size: int = 128,
    title: str = "",
) -> list[str]:
    """One answer per prompt. temperature 0: greedy; contrast: distorted views of the pictures, and
    their kind, for contrastive decoding; evidence: [prompts, V] with the names' `starts` (see `testimony`)."""
    torch.manual_seed(seed)
    answers: list[str] = []
    batches = range(0, len(prompts), batch_size)
    for i in progress(batches, desc=title or "generating", unit="batch", leave=False, disable=not title):
        part = slice(i, i + batch_size)
        suffixes = [vlm.suffix(prompt) for prompt in prompts[part]]
        inputs = to_device(vlm.inputs(pictures[part], suffixes, left=True), vlm.device)
        processors = LogitsProcessorList()
        if contrast is not None:
            views = [view[part] for view in contrast]
            processors.append(ContrastiveProcessor(vlm, views, suffixes, kind, alpha=alpha, beta=beta))
        if evidence is not None:
            row = evidence[part].to(vlm.device)
            processors.append(EvidenceProcessor(row, starts, inputs["input_ids"].shape[1], beta=beta))
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
