"""Lessons: examples with the distribution that the model shall have at each of their answer tokens. No answer is used as a label.

Questions get the model's own purged distribution. Captions, written by the model, are purged by its own answers. Anchors keep the
model's own distribution, so that it changes where it hallucinates and not everywhere. Which examples are anchors is our choice.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from hkd_core.common.errors import UserError
from hkd_core.common.settings import EvolveSettings
from hkd_core.inference.contrast import purify
from hkd_core.inference.generation import ProcessorFor
from hkd_core.inference.scoring import choice_tokens, token_logits, view_logits
from hkd_core.inference.views import FREE_TEXT_VIEWS, Features, with_ids
from hkd_core.losses import smooth_logits
from hkd_core.models.vlm import VLM, Encoded
from hkd_core.seed.purge import Purge, yes_shift
from hkd_core.seed.self_verification import Captioning, evidence, name_starts, named_before, reweight, self_verifying
from hkd_core.training.examples import TrainingSet

ANCHORED_QUESTIONS = 2  # about each picture, in lessons of captions
CAPTION_WEIGHT = 2  # how often each caption stands in a lesson


def purified_targets(
    vlm: VLM,
    data: TrainingSet,
    views: Sequence[str],
    view: str,
    *,
    alphas: Sequence[float],
    cutoff: float,
    shift: Tensor | None,
    epsilon: float = 1e-3,
    clean: Sequence[str] = ("student",),
) -> list[Tensor]:
    """For every example the purged log-probabilities [answer tokens, V] of the model as it is now.

    data: features under "student", under each name of `clean` and under each name of `views`.
    view: how the views were made (one of `views.VIEWS`). clean: views in which everything can be seen. Their mean is purged.
    alphas: one for each example. 0 makes an anchor: the model's own distribution stays as it is.
    shift: [V], subtracted where something is purged and the example has choices.
    epsilon: the probability in all outside the plausible set, so that reverse KL stays finite.
    """
    # An example without an answer asks for one token.
    keep = [max(length - prompt, 1) for length, prompt in zip(data.lengths, data.prompts, strict=True)]
    suffixes = [s[: prompt + k - 1] for s, prompt, k in zip(data.suffixes, data.prompts, keep, strict=True)]

    def asked(rows: Sequence[int]) -> tuple[list, list]:
        return [suffixes[i] for i in rows], [keep[i] for i in rows]

    def seen_by(name: str, rows: Sequence[int]) -> list[Encoded]:
        return [data.pictures[name][data.examples[i]["image_id"]] for i in rows]

    everything = range(len(data))
    own = token_logits(vlm, *asked(everything), seen_by("student", everything), title="clean")
    targets = [logits.log_softmax(-1) for logits in own]
    for closed in (True, False):
        rows = [i for i in everything if alphas[i] > 0 and bool(data.examples[i]["choices"]) == closed]
        if not rows:
            continue
        used = [seen_by(name, rows) for name in (views if closed else views[:FREE_TEXT_VIEWS])]
        priors = view_logits(vlm, *asked(rows), used, view, title="isolating the prior")
        seen = [own[i] for i in rows]
        if len(clean) > 1:
            seen = view_logits(vlm, *asked(rows), [seen_by(name, rows) for name in clean], "clean", title="clean views")
        constant = shift if closed else None
        for i, logits, prior in zip(rows, seen, priors, strict=True):
            targets[i] = smooth_logits(purify(logits, prior, alpha=alphas[i], cutoff=cutoff, shift=constant), epsilon)
    return targets


def verified_targets(
    vlm: VLM, data: TrainingSet, evidence: Mapping[str, Tensor], starts: Tensor, *, cutoff: float, epsilon: float = 1e-3
) -> list[Tensor]:
    """For every caption the log-probabilities [answer tokens, V] of the model as it is now, purged by its own answers.

    evidence: image_id -> [V], for names with these `starts` (see `self_verification`). cutoff, epsilon: as for `purified_targets`.
    """
    asked = [length - prompt for length, prompt in zip(data.lengths, data.prompts, strict=True)]
    pictures = [data.pictures["student"][row["image_id"]] for row in data.examples]
    clean = token_logits(vlm, [suffix[:-1] for suffix in data.suffixes], asked, pictures, title="own captions")
    targets = []
    for row, suffix, logits in zip(data.examples, data.suffixes, clean, strict=True):
        named = named_before(torch.tensor(suffix[-len(logits) :]), starts, logits.shape[1])
        targets.append(smooth_logits(reweight(logits, evidence[row["image_id"]], named, cutoff=cutoff), epsilon))
    return targets


def collate_with(
    data: TrainingSet, targets: Sequence[Tensor], anchors: Sequence[bool] | None = None
) -> Callable[[list[int]], dict]:
    """Indices -> the batch of `data`, with "target" [N, V] and "anchor" [N] bool in the order of its answer tokens.

    anchors: which examples are anchors; None: none is.
    """

    def collate(indices: list[int]) -> dict:
        batch = data.collate(indices)
        batch["features"] = {"student": batch["features"]["student"]}
        chosen = [targets[i] for i in indices]
        anchored = [torch.full((len(targets[i]),), bool(anchors and anchors[i])) for i in indices]
        return batch | {"target": torch.cat(chosen), "anchor": torch.cat(anchored)}

    return collate


@dataclass(frozen=True)
class Lesson:
    """Examples, the log-probabilities [answer tokens, V] they teach, and which of them are anchors."""

    examples: list[dict]
    targets: list[Tensor]
    anchors: list[bool]

    def training_set(self, vlm: VLM, features: Mapping[str, Encoded]) -> TrainingSet:
        """The examples as `collate_with` takes them. features: image_id -> Encoded."""
        return TrainingSet({"student": vlm}, with_ids(self.examples), {"student": features})


class LessonMaker:
    """Makes the lessons of a model that teaches itself, with the model as it is at that moment.

    features: of the pictures to learn from. purge: what validation chose.
    questions: yes/no questions whose answers are purged. They need no `answer`. anchors: examples whose answers shall stay.
    captioning: which pictures are described, and how. Without `ids` there are no captions.
    gamma: how strongly the model's own answers purge its captions. 0: captions are anchors.
    Raises UserError for gamma above 0 without captions or names.
    """

    def __init__(
        self,
        vlm: VLM,
        features: Features,
        purge: Purge,
        settings: EvolveSettings,
        *,
        questions: Sequence[dict],
        anchors: Sequence[dict] = (),
        captioning: Captioning | None = None,
        gamma: float = 0.0,
    ):
        self.vlm, self.features, self.purge, self.settings = vlm, features, purge, settings
        self.captioning, self.gamma = captioning or Captioning(), gamma
        if gamma > 0 and not (self.captioning.names and self.captioning.prompt and self.captioning.ids):
            raise UserError(
                "lessons: gamma above 0 purges captions, which needs a prompt, pictures to describe and names to ask about"
            )
        self.questions, self.anchors = ([{"answer": "", **row} for row in with_ids(rows)] for rows in (questions, anchors))

    def course(self, rounds: int) -> list[Callable[..., Lesson]]:
        """What `evolve` takes: first a lesson in answers, then, where captions are purged, lessons in captions."""
        return [self.answers, *[self.captions] * (rounds - 1 if self.gamma else 0)]

    def answers(self, found: Mapping[str, float] | None = None, *, teach: str = "purged") -> Lesson:
        """Questions with their targets; anchors and the model's own captions are anchored. found: not used, see `captions`.

        teach: "purged", or a control. "first_choice": the model's own most probable token, as if it were a label. "shifted": the
        control's constant shift alone is subtracted. Raises UserError for another word.
        """
        ways = {"purged": self._purged, "first_choice": self._first_choice, "shifted": self._shifted}
        if teach not in ways:
            raise UserError(f'teach: expected one of {", ".join(ways)}, got "{teach}"')
        targets = ways[teach]()
        anchored, anchor_targets = self._anchored
        flags = [False] * len(targets) + [True] * len(anchored)
        return Lesson([*self.questions, *anchored], [*targets, *anchor_targets], flags)

    def captions(self, found: Mapping[str, float] | None = None) -> Lesson:
        """The captions that the model writes now, plain and purged, with targets purged by what it answers now.

        found: what validation says of the model. Its `shift` is the constant that the answers need.
        Two questions about each picture are anchored. The purged decoder's captions are needed because they name other things: nothing
        else would teach how to go on from there.
        """
        told = self.captioning.affirmed(self.vlm, self.features.clean, shift=(found or {}).get("shift", 0.0))
        starts, cutoff = name_starts(self.vlm, self.captioning.names), self.settings.text_cutoff
        weights = evidence(told, starts, self.vlm.head.shape[0], gamma=self.gamma)
        captions = [*self.written(), *self.written(self_verifying(weights, starts, cutoff=cutoff))]
        of_picture = dict(zip(self.captioning.ids, weights, strict=True))
        how = {"cutoff": cutoff, "epsilon": self.settings.epsilon}
        judged = verified_targets(self.vlm, self.training_set(captions), of_picture, starts, **how)
        about = Counter()
        again = []
        for row in self.questions:
            about[row["image_id"]] += 1
            again += [row] * (about[row["image_id"]] <= ANCHORED_QUESTIONS)
        anchors = self._anchored[0][: len(self.anchors)]
        examples = [*again, *anchors, *captions * CAPTION_WEIGHT]
        targets = [*self.anchor_targets(again), *self._anchored[1][: len(anchors)], *judged * CAPTION_WEIGHT]
        kept = len(again) + len(anchors)
        return Lesson(examples, targets, [True] * kept + [False] * (len(examples) - kept))

    def written(self, processor: ProcessorFor | None = None) -> list[dict]:
        """Captions of the pictures to be described, by the model as it is now, as examples."""
        texts = self.captioning.write(self.vlm, self.features.clean, processor, batch_size=256, title="own captions")
        row = {"task": "caption", "prompt": self.captioning.prompt, "choices": []}
        return [row | {"image_id": i, "answer": text} for i, text in zip(self.captioning.ids, texts, strict=True)]

    def anchor_targets(self, examples: Sequence[dict]) -> list[Tensor]:
        """Targets that keep every answer as the model gives it now."""
        if not examples:
            return []
        return purified_targets(self.vlm, self.training_set(examples), [], "", alphas=[0.0] * len(examples), cutoff=0.0, shift=None)

    def training_set(self, examples: Sequence[dict]) -> TrainingSet:
        """The examples with their pictures' features, clean and under the views of the purge."""
        features = {"student": self.features.clean}
        features |= {f"view {k}": view for k, view in enumerate(self.features.under(self.purge.view, self.purge.strength))}
        features |= {f"clean {k}": view for k, view in enumerate(self._more_clean_views)}
        return TrainingSet(dict.fromkeys(features, self.vlm), examples, features)

    @cached_property
    def _more_clean_views(self) -> list[dict[str, Encoded]]:
        return self.features.clean_views(self.purge.clean_views)[1:]

    @cached_property
    def _anchored(self) -> tuple[list[dict], list[Tensor]]:
        """Anchors and the model's own captions, with what it says of them when it is asked first."""
        own = self.written()
        return [*self.anchors, *own], [*self.anchor_targets(self.anchors), *self.anchor_targets(own)]

    def _purged(self) -> list[Tensor]:
        data = self.training_set(self.questions)
        views = [name for name in data.names if name.startswith("view ")]
        clean = [name for name in data.names if not name.startswith("view ")]
        how = {"cutoff": self.purge.cutoff, "shift": self._shift(self.purge.shift), "epsilon": self.settings.epsilon, "clean": clean}
        return purified_targets(self.vlm, data, views, self.purge.view, alphas=[self.purge.alpha] * len(data), **how)

    def _first_choice(self) -> list[Tensor]:
        own, epsilon = self.anchor_targets(self.questions), self.settings.epsilon
        return [smooth_logits(torch.where(x == x.amax(-1, keepdim=True), x, -torch.inf), epsilon) for x in own]

    def _shifted(self) -> list[Tensor]:
        how = {"alpha": 0.0, "cutoff": self.purge.cutoff, "shift": self._shift(self.purge.control_shift)}
        return [smooth_logits(purify(x, x, **how), self.settings.epsilon) for x in self.anchor_targets(self.questions)]

    def _shift(self, value: float) -> Tensor:
        yes = choice_tokens(self.vlm, self.questions[0]["prompt"], self.captioning.wording.yes_no)[0][0]
        return yes_shift(yes, value, self.vlm.head.shape[0])
