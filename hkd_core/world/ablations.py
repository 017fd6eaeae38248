"""HKD4VLM in the built-in world with one switch at a time turned: variants as data, and the process that trains and asks them.

A variant starts from the study's base models, or from its pyramid where it shares that. What a process makes is kept for its next variant.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import hkd_core
from hkd_core.common.files import fingerprint, resumed
from hkd_core.common.folders import Folders
from hkd_core.common.parallel import side_by_side
from hkd_core.common.settings import Profile
from hkd_core.data.schema import load_examples
from hkd_core.evaluation import suite
from hkd_core.evaluation.runs import Data, load_split
from hkd_core.hkd import refine, ternary, train_pyramid
from hkd_core.models import VLM, load_vlm
from hkd_core.training import TrainingSet, distil, tune
from hkd_core.training.teacher_answers import averaged, choice_logprobs
from hkd_core.world.sets import first_labelled, in_all_places, tuning_set, with_rehearsal
from hkd_core.world.tasks import LETTERS
from hkd_core.world.wording import WORDING

ROOMS = ("common", "data", "evaluation", "hkd", "inference", "losses", "models", "seed", "training", "world")  # the code that answers depend on


@dataclass(frozen=True)
class Variant:
    """One way of training, by what differs from the study's.

    way: "hkd", the whole method; "tuned", labels alone; "through_assistant", plain distillation of medium, then of small. size: of the
    model that answers. data: arguments of `AblationStudy.examples`. supervised, pyramid, ternary: settings that change.
    apart: the pyramid's models are tuned each alone instead. by_name: run only when it is named.
    """

    way: str = "hkd"
    size: str = "small"
    data: Mapping[str, Any] = field(default_factory=dict)
    supervised: Mapping[str, Any] = field(default_factory=dict)
    pyramid: Mapping[str, Any] = field(default_factory=dict)
    ternary: Mapping[str, Any] = field(default_factory=dict)
    apart: bool = False
    by_name: bool = False

    @property
    def shares_answers(self) -> bool:
        """Whether the study's teachers answer the study's examples: they need be asked once for all such variants."""
        return self.way == "hkd" and not (self.apart or self.data or self.pyramid)

    @property
    def shares_pyramid(self) -> bool:
        return not (self.apart or self.pyramid or set(self.data) - {"unlabelled"})


class AblationStudy:
    """The study's settings and data in one process, with what several variants need made once. cfg: a profile's settings."""

    def __init__(self, folders: Folders, cfg: Profile, seed: int):
        self.folders, self.cfg, self.seed = folders, cfg, seed
        self.sizes = list(cfg.base_models.widths)
        self.roles = ternary.roles(cfg.pyramid.levels)
        self._kept: dict[Any, Any] = {}

    def once(self, name: Any, make: Callable[[], Any]) -> Any:
        if name not in self._kept:
            self._kept[name] = make()
        return self._kept[name]

    def base(self, size: str) -> VLM:
        return load_vlm(self.folders.models / "base_models" / size)

    def examples(
        self,
        labelled: int | None = None,
        *,
        augmented: bool = True,
        rotated: bool = True,
        unlabelled: int = 0,
        rehearsed: bool = True,
    ) -> TrainingSet:
        """Examples for every size. Every picture is read once; this chooses among the examples.

        labelled: pictures with labels, by default the study's; with fewer, what was made of the other pictures is left out. augmented:
        also what 02_augment made of them. rotated: everything with its options in all places. unlabelled: examples without answers.
        """

        def everything() -> TrainingSet:
            bases = {size: self.base(size) for size in self.sizes}
            labelled, unlabelled = self.cfg.data.labelled, self.cfg.ternary.unlabelled
            return tuning_set(bases, self.folders.data, labelled=labelled, augmented=True, unlabelled=unlabelled)

        data = self.once("everything", everything)
        once = data.examples[:: len(LETTERS)]  # each stands there with its options in all places
        known = [row for row in once if row["answer"] and row["task"] != "rehearsal"]
        rows = first_labelled(known, labelled or self.cfg.data.tuned)
        rows = [row for row in rows if augmented or "of" not in row["meta"]]
        rows += [row for row in once if not row["answer"]][:unlabelled]
        if rehearsed:
            rows = with_rehearsal(rows, load_examples(self.folders.data / "augmented/rehearsal"))
        return TrainingSet({size: data.vlm for size in self.sizes}, in_all_places(rows) if rotated else rows, data.pictures)

    def train(self, variant: Variant) -> VLM:
        """The variant's model. Raises KeyError for an unknown way."""
        ways = {"hkd": self._hkd, "tuned": self._tuned, "through_assistant": self._through_assistant}
        return ways[variant.way](variant)

    def answers(self, variant: Variant) -> list[dict]:
        """The variant's model asked the challenge's tasks, plain and under mapping shift; validation's answers as well."""
        where = Data(self.folders.data / "scenes", WORDING, ("none", 0))

        def split(name: str) -> suite.Split:
            rows = load_examples(where.folder / f"examples_{name}", *suite.TASKS)
            return load_split(self.base(variant.size), where, name, rows)

        val, test = (self.once((variant.size, name), partial(split, name)) for name in ("val", "test"))
        return suite.task_answers(self.train(variant), val, test, ("greedy", "msi"))

    def _tuned(self, variant: Variant) -> VLM:
        vlm = self.base(variant.size)
        data = self.examples(**variant.data).as_roles(student=variant.size)
        cfg = self.cfg.supervised.replace(**variant.supervised)
        tune(vlm, data, cfg, seed=self.seed, title=f"tuning {variant.size}")
        return vlm

    def _through_assistant(self, variant: Variant) -> VLM:
        data, teacher = self.examples(**variant.data), load_vlm(self.folders.models / "supervised/large")
        cfg = self.cfg.supervised.replace(steps=self.cfg.supervised.long_steps)
        for size, taught_by in (("medium", "large"), (variant.size, "medium")):
            vlm, answers = self.base(size), choice_logprobs(teacher, taught_by, data)
            how = {"seed": self.seed, "title": f"{taught_by} teaches {size}"}
            distil(vlm, data.as_roles(student=size), cfg, teacher_logprobs=answers, **how)
            teacher = vlm
        return teacher

    def _pyramid(self, variant: Variant) -> Mapping[str, VLM]:
        """The models that the variant refines: the study's pyramid, or another one."""
        if variant.shares_pyramid:
            return self.once("pyramid", lambda: {size: load_vlm(self.folders.models / "pyramid" / size) for size in self.sizes})
        cfg = self.cfg.pyramid.replace(**variant.pyramid)
        data = self.examples(**{name: value for name, value in variant.data.items() if name != "unlabelled"})
        models = {size: self.base(size) for size in self.sizes}
        if not variant.apart:
            return train_pyramid(models, data, cfg, levels=cfg.levels, seed=self.seed).models
        for size, vlm in models.items():  # the same examples and steps, but each alone
            tune(vlm, data.as_roles(student=size), cfg, seed=self.seed, title=f"tuning {size}")
        return models

    def _hkd(self, variant: Variant) -> VLM:
        """Pyramid and refinement. What comes in is left as it was: a copy of the small model is refined."""
        sized = self._pyramid(variant)
        models = {role: sized[size] for role, size in self.roles.items()}
        chosen: dict[str, Any] = {"unlabelled": self.cfg.ternary.unlabelled, **variant.data}
        data = self.examples(**chosen).as_roles(**self.roles)
        cfg = self.cfg.ternary.replace(**variant.ternary)
        ask = partial(ternary.ask_teachers, models, data)
        answers = self.once("answers", ask) if variant.shares_answers else ask()
        # Where options stand in one place, teachers cannot be asked under mapping shift.
        if cfg.shifted_teachers and variant.data.get("rotated", True):
            answers = {name: averaged(data.examples, logp, WORDING) for name, logp in answers.items()}
        before = models["student"]
        student = VLM(deepcopy(before.model), before.processor, name="hkd_small")
        return refine(student, models["teacher"], models["assistant"], data, cfg, teacher_logprobs=answers, seed=self.seed).student


def jobs_of(variants: Mapping[str, Variant]) -> list[list[str]]:
    """Names of variants, a list for each process, the longest first. What shares the teachers' answers is one job."""
    together = [name for name, variant in variants.items() if variant.shares_answers]
    jobs = [together, *([name] for name in variants if name not in together)]
    return sorted(filter(None, jobs), key=lambda names: (-len(names), "hkd" not in names[0]))


def answers_of(study: AblationStudy, variants: Mapping[str, Variant]) -> dict[str, list[dict]]:
    """Every variant's answers, by name. Finished variants are kept under the profile's build, so a killed run goes on from there."""
    folders = study.folders
    models = [folders.models / name for name in ("base_models", "supervised", "pyramid")]
    code = [hkd_core.__path__[0] + f"/{room}" for room in ROOMS]
    key = fingerprint(*models, folders.data, *code, settings=study.cfg.model_dump(), seed=study.seed)
    jobs = jobs_of(variants)
    done = side_by_side([partial(_run, study, {name: variants[name] for name in names}, key) for names in jobs])
    found = dict(zip((name for names in jobs for name in names), (answers for several in done for answers in several), strict=True))
    return {name: found[name] for name in variants}


def _run(study: AblationStudy, variants: Mapping[str, Variant], key: str) -> Sequence[list[dict]]:
    kept = study.folders.build / "ablations"
    return [
        resumed(kept / f"{name}-{study.seed}.jsonl", f"{key} {variant}", partial(study.answers, variant))
        for name, variant in variants.items()
    ]
