"""Mode-seeking evolving: a model's own purged distribution, distilled back into an adapter (or a control), round by round.

minimise over the adapter:  KL(p_s || p*)  at purged answers  +  anchor_weight KL(p_0 || p_s)  at anchors

p_s: the model with the adapter; p*: its purged distribution; p_0: its answer before. SEED's abstract states that purified knowledge
is distilled back, mode-seeking, into an adapter. Reverse KL, the anchors and how rounds end are our reading.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from hkd_core.common.errors import UserError
from hkd_core.common.settings import EvolveSettings
from hkd_core.losses import divergence
from hkd_core.models.adapter import HallucinationEliminationAdapter
from hkd_core.models.families import decoder_name
from hkd_core.models.vlm import VLM, Encoded
from hkd_core.seed.lessons import Lesson, collate_with
from hkd_core.training.examples import answer_hidden, project
from hkd_core.training.objectives import ModelGroup, trainable
from hkd_core.training.trainer import LossTerm, train
from hkd_core.training.tuning import schedule_of

LEARNERS = ("adapter", "lora", "full")  # what SEED trains, and two controls: a LoRA in every layer, the whole language model
BETA = 0.5  # mixture weight of the controls jsd and skewed KL
LORA_MODULES = r".*{}.*\.(q_proj|v_proj|down_proj)"  # of the language model, by its name


class EvolveStep(ModelGroup):
    """divergence(model with adapter || purged distribution) at the answers' positions. The base is frozen beside an adapter.

    adapter: None means that what already requires a gradient learns, for instance the LoRA that peft has put into the model.
    Divergences other than "reverse_kl" are controls. At anchors it is always forward KL, times `anchor_weight`. Nothing was purged
    there, so there is no false mode to let go of, and a model that must cover its earlier answers forgets less. Our choice.
    """

    def __init__(self, vlm: VLM, adapter: HallucinationEliminationAdapter | None, settings: EvolveSettings):
        super().__init__({"student": vlm})
        if adapter is not None:
            vlm.model.requires_grad_(False)
            self.adapter = adapter.requires_grad_(True)
        self.settings = settings

    def forward(self, batch: dict) -> dict[str, LossTerm]:
        logits = project(self.vlms["student"], answer_hidden(self.vlms["student"], batch, "student")[0])
        how = {"kind": self.settings.divergence, "beta": BETA}
        purified, _ = divergence(logits, batch["target"], mask=~batch["anchor"], **how)
        anchored, _ = divergence(logits, batch["target"], mask=batch["anchor"], kind="forward_kl")
        return {"purified": LossTerm(purified), "anchored": LossTerm(anchored, self.settings.anchor_weight)}


@dataclass
class Evolution:
    """What was learned. The model has the learner with the weights of round `kept` in it.

    table: one row for each round, from 0, of what validation found. states: the learner's weights after each of these rounds.
    history: round -> records of the training. lessons: one for each round, from 1.
    """

    vlm: VLM
    adapter: HallucinationEliminationAdapter | None
    table: list[dict] = field(default_factory=list)
    states: list[dict[str, Tensor]] = field(default_factory=list)
    history: dict[int, list[dict]] = field(default_factory=dict)
    lessons: list[Lesson] = field(default_factory=list)
    kept: int = 0

    @property
    def learner(self) -> nn.Module:
        return self.vlm.model if self.adapter is None else self.adapter

    def use(self, number: int) -> "Evolution":
        """Put the weights of round `number` into the learner; returns self."""
        self.learner.load_state_dict(self.states[number], strict=False)
        return self

    def save(self, folder: str | Path) -> None:
        """Write the learner as it is: an adapter's folder, peft's, or a whole model's. peft's files name the base by `vlm.name`."""
        if self.adapter is not None:
            self.adapter.save_pretrained(folder)
        elif hasattr(self.vlm.model, "peft_config"):
            # peft's README would name the folder that the model was loaded from.
            self.vlm.core.config._name_or_path = self.vlm.core.name_or_path = self.vlm.name  # type: ignore[assignment]
            self.vlm.model.save_pretrained(str(folder), save_embedding_layers=False)  # none was trained
        else:
            self.vlm.save(folder)

    def _snapshot(self) -> None:
        learned = {name: p for name, p in self.learner.named_parameters() if p.requires_grad}
        self.states.append({name: p.detach().clone() for name, p in learned.items()})


def new_learner(
    vlm: VLM, settings: EvolveSettings, learner: str, *, seed: int
) -> HallucinationEliminationAdapter | None:
    """Put what shall learn into the model; returns the adapter, if it is one. At first the model answers as before.

    A LoRA has a quarter of the adapter's rank. Raises UserError for an unknown learner.
    """
    if learner not in LEARNERS:
        raise UserError(f'learner: expected one of {", ".join(LEARNERS)}, got "{learner}"')
    torch.manual_seed(seed)
    if learner == "adapter":
        layers = min(settings.layers, len(vlm.layers))
        width = vlm.head.shape[1]
        return HallucinationEliminationAdapter(width, rank=settings.rank, layers=layers).attach(vlm.model)
    if learner == "lora":
        modules = LORA_MODULES.format(decoder_name(vlm.core))
        low = LoraConfig(r=max(settings.rank // 4, 1), lora_alpha=max(settings.rank // 2, 1), target_modules=modules)
        vlm.model = get_peft_model(vlm.model, low)
        vlm.model.peft_config["default"].base_model_name_or_path = vlm.name
    else:
        trainable(vlm)
    return None


def evolve(
    vlm: VLM,
    course: Sequence[Lesson | Callable[[Mapping[str, float]], Lesson]],
    settings: EvolveSettings,
    *,
    features: Mapping[str, Encoded],
    seed: int,
    validate: Callable[[VLM], Mapping[str, float]] | None = None,
    learner: str = "adapter",
    title: str = "evolving",
) -> Evolution:
    """Learn a course of lessons, one in each round. The model ends with the round that validation likes best.

    course: lessons, or functions that make one with the model as it then is. A function is given what validation found last.
    features: image_id -> Encoded, of the lessons' pictures.
    validate: model -> what is found, `kept_by` among it (higher is better). The first round that is no better than the best one
        before it is the last. Without `validate` every round is learned, and the last one is kept.
    learner: one of LEARNERS.
    Raises UserError where validation finds no `kept_by`, and as `new_learner` and `train` do.
    """
    found = Evolution(vlm, new_learner(vlm, settings, learner, seed=seed))
    if validate is not None:
        found.table.append({"round": 0, **validate(vlm)})
        if "kept_by" not in found.table[0]:
            raise UserError(f"validate: expected kept_by among what it finds, got {', '.join(found.table[0])}")
        found._snapshot()
    for number, lesson in enumerate(course, 1):
        lesson = lesson if isinstance(lesson, Lesson) else lesson(found.table[-1] if found.table else {})
        found.lessons.append(lesson)
        data = lesson.training_set(vlm, features)
        schedule = schedule_of(settings if number == 1 else settings.replace(steps=settings.caption_steps))
        step = EvolveStep(vlm, found.adapter, settings)
        how = {"seed": seed + number, "lengths": data.lengths, "title": title if len(course) == 1 else f"{title}, round {number}"}
        found.history[number] = train(step, collate_with(data, lesson.targets, lesson.anchors), len(data), schedule, **how)
        found.kept = number
        if validate is not None:
            found.table.append({"round": number, **validate(vlm)})
            found._snapshot()
            if found.table[-1]["kept_by"] <= max(row["kept_by"] for row in found.table[:-1]):
                break
    if validate is not None:
        found.kept = max(found.table, key=lambda row: row["kept_by"])["round"]
        found.use(found.kept)
    return found
