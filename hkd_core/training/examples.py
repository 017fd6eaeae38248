"""What an objective is fed: tokenised examples, and each model's features of their pictures.

An example is a dict with `image`, `prompt`, `choices` and `answer`; `image_id`, `task` and `meta` are used where they are given. An
answer "" is unknown: there is no label.
"""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hkd_core.common.errors import UserError
from hkd_core.inference.views import with_ids
from hkd_core.losses import shared_vocabulary
from hkd_core.models.vlm import VLM, Encoded, Picture, encode_all

UNLABELLED = -100  # the label of a position whose answer nobody knows; cross-entropy leaves it out
ABSENT = {"answer": "", "choices": [], "meta": {}}  # what an example has where it does not say


@dataclass(frozen=True)
class Asked:
    """One model's token ids of every example after its picture, and how many of them are the prompt."""

    prompts: list[int]
    suffixes: list[list[int]]

    def answer(self, i: int) -> list[int]:
        return self.suffixes[i][self.prompts[i] :]


def tokenised(vlm: VLM, examples: Sequence[dict]) -> Asked:
    """The examples in a model's own template; what recurs is tokenised once."""
    found, known = Asked([], []), dict[tuple, tuple[int, list[int]]]()
    for example in examples:
        # One-symbol answers end with the symbol; free text also learns where to stop.
        asked = example["prompt"], example["answer"] or None, not example["choices"]
        if asked not in known:
            prompt, answer, closed = asked
            known[asked] = len(vlm.suffix(prompt)), vlm.suffix(prompt, answer, closed=closed)
        length, suffix = known[asked]
        found.prompts.append(length)
        found.suffixes.append(suffix)
    return found


class TrainingSet:
    """Examples tokenised once, for one or more models that share a tokenizer. `of_examples` makes one from examples with pictures.

    vlms: name -> model. pictures: name -> image_id -> Encoded, that model's features. The first model's are the token ids.
    An example whose answer is "" has no label: it asks for one token, and only other models can say which.
    Where heads are padded to different lengths, logits are cut to the shared vocabulary. Raises UserError if tokenizers differ.
    """

    def __init__(self, vlms: Mapping[str, VLM], examples: Sequence[dict], pictures: Mapping[str, Mapping[str, Encoded]]):
        self.names, self.examples, self.pictures = list(vlms), [ABSENT | row for row in examples], pictures
        self.vlm = vlms[self.names[0]]
        self.vocabulary = min(vlm.head.shape[0] for vlm in vlms.values())
        for name in self.names[1:]:
            if vlms[name].tokenizer.get_vocab() == self.vlm.tokenizer.get_vocab() and len(vlms[name].head) == len(self.vlm.head):
                continue
            try:
                shared = shared_vocabulary(self.vlm.tokenizer.get_vocab(), vlms[name].tokenizer.get_vocab())
            except UserError as error:
                raise UserError(f"{name} and {self.names[0]}: {error}") from error
            self.vocabulary = min(self.vocabulary, shared)
        first = tokenised(self.vlm, self.examples)
        others = {name: vlm for name, vlm in vlms.items() if vlm.template != self.vlm.template}
        self.vlms = dict(vlms)
        self.asked = dict.fromkeys(self.names, first) | {name: tokenised(vlm, self.examples) for name, vlm in others.items()}
        self._follow(self.names[0])

    def _follow(self, name: str) -> None:
        """Take one model's token ids for the examples' own."""
        self.vlm, self.prompts, self.suffixes = self.vlms[name], self.asked[name].prompts, self.asked[name].suffixes
        self.lengths = [len(suffix) for suffix in self.suffixes]

    @classmethod
    def of_examples(
        cls, vlms: Mapping[str, VLM], examples: Sequence[dict], images: Mapping[str, Picture] | None = None
    ) -> "TrainingSet":
        """Examples with their pictures: each has `image`, or `image_id` and `images` has the picture. Equal pictures are read once.

        Raises UserError for an example without a picture, an answer that is none of its choices, and as the constructor does.
        """
        rows = []
        for i, row in enumerate(examples):
            image = row["image"] if row.get("image") is not None else (images or {}).get(row.get("image_id", ""))
            if image is None:
                raise UserError(f"example {i}: expected a picture under image, or an image_id among images, got neither")
            if row.get("answer") and row.get("choices") and row["answer"] not in row["choices"]:
                raise UserError(f'example {i}: expected an answer among {list(row["choices"])}, got "{row["answer"]}"')
            rows.append(row | {"image": image})
        rows = with_ids(rows)
        pictures = {row["image_id"]: row["image"] for row in rows}
        encoded = encode_all(vlms, list(pictures.values()), title="seeing")
        features = {name: dict(zip(pictures, several, strict=True)) for name, several in encoded.items()}
        return cls(vlms, [{key: value for key, value in row.items() if key != "image"} for row in rows], features)

    def as_roles(self, **roles: str) -> "TrainingSet":
        """The same examples for models under other names: new name -> the name here. Nothing is computed again."""
        found = copy.copy(self)
        found.names = list(roles)
        for part in ("pictures", "asked", "vlms"):
            setattr(found, part, {role: getattr(self, part)[name] for role, name in roles.items()})
        found._follow(found.names[0])
        return found

    def __len__(self) -> int:
        return len(self.examples)

    def collate(self, indices: Sequence[int]) -> dict:
        """A batch: ids, mask [B, T]; features name -> list; `asked` [B, T] bool, where an answer token comes next; labels [N], UNLABELLED where unknown.

        Counts: `tokens` asked for, `labelled` ones among them, `examples`. `vocabulary`: the length that `project` cuts heads to. `ids`:
        names of the examples, for a report.
        """
        ids = [self.examples[i]["image_id"] for i in indices]
        batch = self._rows(self.names[0], indices)
        own = {name: self._rows(name, indices) for name in self.names[1:] if self._differs(name, indices)}
        batch |= {
            "features": {name: [self.pictures[name][i].features for i in ids] for name in self.names},
            "own": own,
            "tokens": len(batch["labels"]),
            "labelled": int((batch["labels"] != UNLABELLED).sum()),
            "examples": len(indices),
            "vocabulary": self.vocabulary,
            "ids": [f"{self.examples[i]['image_id']} {self.examples[i].get('task', '')}".strip() for i in indices],
        }
        return batch

    def _rows(self, name: str, indices: Sequence[int]) -> dict:
        """What `collate` gives of one model's own tokens: ids, mask, extras, `asked`, labels."""
        pictures, asks = self.pictures[name], self.asked[name]
        seen = [pictures[self.examples[i]["image_id"]] for i in indices]
        suffixes, answers = [asks.suffixes[i] for i in indices], [len(asks.answer(i)) for i in indices]
        batch = self.vlms[name].inputs(seen, suffixes, answers=answers)
        asked = torch.zeros_like(batch["attention_mask"], dtype=torch.bool)
        following = batch["input_ids"].roll(-1, 1)
        for row, i in enumerate(indices):
            end = len(seen[row].prefix) + len(suffixes[row])
            if self.examples[i]["answer"]:
                asked[row, end - answers[row] - 1 : end - 1] = True
            else:
                asked[row, end - 1], following[row, end - 1] = True, UNLABELLED
        del batch["features"]
        return batch | {"asked": asked, "labels": following[asked]}

    def _differs(self, name: str, indices: Sequence[int]) -> bool:
        """Whether a model reads these examples as other tokens than the first: in its own template, or with more visual tokens.

        Where there is nothing to see, the first model's placeholders stay, as they are.
        """
        first, other, ids = self.pictures[self.names[0]], self.pictures[name], [self.examples[i]["image_id"] for i in indices]
        more = any(len(other[i].features) and first[i].prefix != other[i].prefix for i in ids)
        return more or self.asked[name] is not self.asked[self.names[0]]


def as_training_set(vlms: Mapping[str, VLM], data: TrainingSet | Sequence[dict]) -> TrainingSet:
    """`data` if it is a training set, else a set of these examples with their pictures, for these models."""
    return data if isinstance(data, TrainingSet) else TrainingSet.of_examples(vlms, data)


def view(batch: dict, name: str) -> dict:
    """The batch as one of its models takes it."""
    return batch | {"features": batch["features"][name]} | batch.get("own", {}).get(name, {})


def answer_hidden(vlm: VLM, batch: dict, name: str) -> tuple[Tensor, Any]:
    """([N, H] hidden states where an answer token comes next, the decoder's whole output).

    Raises UserError where the model's template makes other tokens of an answer than the first model's.
    """
    own = view(batch, name)
    if not torch.equal(own["labels"], batch["labels"]):
        raise UserError(f"{name}: its template gives the answers other tokens than the first model's, so that they cannot be compared")
    output = vlm.hidden(own)
    return output.last_hidden_state[own["asked"]], output


def project(vlm: VLM, hidden: Tensor, vocabulary: int | None = None) -> Tensor:
    """[N, V] float32 logits of hidden states [N, H], over the first `vocabulary` rows of the head. Only these positions meet the head."""
    with torch.autocast(hidden.device.type, enabled=False):
        return vlm.logits(hidden, vocabulary)
