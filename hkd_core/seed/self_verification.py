"""Self-verification: a model's own answers about things, as evidence for naming these things in a caption.

A caption is written word by word, largely from what such a place usually has. No distortion tells such a name from one that was
seen. Asked "Is there a dog in the image?", the same model looks. So its own answers purge its captions: the caption's next word
is weighted by the answer to a question about it. SEED's abstract says that a model purges its own hallucinations. How is our
choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LogitsProcessor

from hkd_core.common.errors import UserError
from hkd_core.data.wording import Wording
from hkd_core.inference.contrast import purify
from hkd_core.inference.generation import Batch, ProcessorFor, generate
from hkd_core.inference.scoring import answer_logits, choice_tokens
from hkd_core.models.vlm import VLM, Encoded

ALREADY_NAMED = -20.0  # evidence against naming a thing twice


@dataclass(frozen=True)
class Captioning:
    """How a model describes pictures, and what it is asked about to verify that.

    prompt: asks for a caption. ids: the pictures to describe (image_ids). names: what the model is asked about. wording: of the dataset.
    """

    prompt: str = ""
    ids: Sequence[str] = ()
    names: Sequence[str] = ()
    wording: Wording = field(default_factory=Wording)
    max_new_tokens: int = 28

    def write(
        self, vlm: VLM, features: Mapping[str, Encoded], processor: ProcessorFor | None = None, **how: object
    ) -> list[str]:
        """A caption of each picture. features: image_id -> Encoded. how: for `generate`."""
        pictures = [features[i] for i in self.ids]
        return generate(
            vlm, [self.prompt] * len(pictures), pictures, max_new_tokens=self.max_new_tokens, processor=processor, **how
        )

    def affirmed(self, vlm: VLM, features: Mapping[str, Encoded], *, shift: float) -> Tensor:
        """[pictures, names], as `affirmed` gives it."""
        pictures = [features[i] for i in self.ids]
        return affirmed(vlm, self.names, pictures, self.wording, shift=shift, title="asking about every name")


def name_starts(vlm: VLM, names: Sequence[str]) -> Tensor:
    """[K] ids of the token that each name begins with inside a text."""
    before = len(vlm.tokenizer("a", add_special_tokens=False).input_ids)
    return torch.tensor([vlm.tokenizer(f"a {name}", add_special_tokens=False).input_ids[before] for name in names])


def affirmed(
    vlm: VLM, names: Sequence[str], pictures: Sequence[Encoded], wording: Wording, *, shift: float = 0.0, title: str = ""
) -> Tensor:
    """[N, K] log-probability of "Yes" over "No" when asked whether each of K names is in each of N pictures.

    shift: subtracted from the margin first; the constant fitted on validation, which answers to questions are given too.
    """
    prompts = [wording.ask_about(name) for name in names]
    logits = answer_logits(vlm, prompts * len(pictures), [picture for picture in pictures for _ in names], title=title)
    yes, no = (tokens[0] for tokens in choice_tokens(vlm, prompts[0], wording.yes_no))
    return F.logsigmoid(logits[:, yes] - logits[:, no] - shift).view(len(pictures), len(names))


def evidence(affirmed: Tensor, starts: Tensor, vocabulary: int, *, gamma: float) -> Tensor:
    """[N, V], to be added to the logits of a caption's next token: gamma times `affirmed` at the names' starts, else 0.

    affirmed: [N, K]. starts: [K]. Of names that begin with the same token the most affirmed one counts.
    Raises UserError for gamma < 0.
    """
    if gamma < 0:
        raise UserError(f"gamma: expected 0 or more, got {gamma}")
    found = torch.full((len(affirmed), vocabulary), -torch.inf)
    found.scatter_reduce_(1, starts.expand(len(affirmed), -1), gamma * affirmed, "amax")
    return torch.where(found == -torch.inf, 0.0, found)


def named_before(tokens: Tensor, starts: Tensor, vocabulary: int) -> Tensor:
    """[T, V] bool: which names' starts stand in tokens [T] before each place."""
    here = F.one_hot(tokens, vocabulary).bool() & torch.isin(torch.arange(vocabulary), starts)
    return (here.cumsum(0) - here.long()) > 0


def reweight(clean: Tensor, evidence: Tensor, named: Tensor, *, cutoff: float) -> Tensor:
    """[N, V]: the logits of a caption's next token plus the evidence for it, -inf outside the plausible set.

    clean: [N, V]; evidence: [N, V] or [V]; named: [N, V] bool, the names already in the caption, which get `ALREADY_NAMED` instead.
    """
    return purify(clean, clean, alpha=0.0, cutoff=cutoff, shift=-torch.where(named, ALREADY_NAMED, evidence))


class EvidenceProcessor(LogitsProcessor):
    """Reweights each step's logits by the evidence [B, V]; a name (its first token is in `starts`) is said once."""

    def __init__(self, evidence: Tensor, starts: Tensor, prompt: int, *, cutoff: float):
        self.evidence, self.prompt, self.cutoff = evidence, prompt, cutoff
        self.names = torch.isin(torch.arange(evidence.shape[1]), starts)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.evidence, self.names = self.evidence.to(scores.device), self.names.to(scores.device)
        named = torch.zeros_like(scores, dtype=torch.bool).scatter(1, input_ids[:, self.prompt :], True) & self.names
        return reweight(scores.float(), self.evidence, named, cutoff=self.cutoff)


def self_verifying(evidence: Tensor, starts: Tensor, *, cutoff: float) -> ProcessorFor:
    """Captions purged by the model's own answers, for `generate`. evidence: [prompts, V], as `evidence` gives it for `starts`."""

    def processor(batch: Batch) -> LogitsProcessor:
        return EvidenceProcessor(evidence[batch.rows], starts, batch.length, cutoff=cutoff)

    return processor
