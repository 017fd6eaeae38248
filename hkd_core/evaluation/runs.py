"""The whole evaluation: every model on every benchmark, models side by side, and what was done is kept if a run is killed."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import hkd_core
from hkd_core.common.files import fingerprint, resumed
from hkd_core.common.parallel import side_by_side
from hkd_core.data.schema import load_examples, load_pictures
from hkd_core.data.wording import Wording
from hkd_core.evaluation.suite import Settings, Split, answers_of
from hkd_core.evaluation.tables import table_rows
from hkd_core.inference.views import distorted_views
from hkd_core.models import load_vlm
from hkd_core.models.vlm import VLM, encode_all

CODE = Path(hkd_core.__path__[0])  # answers are kept only as long as nothing in it changes


@dataclass(frozen=True)
class System:
    """A model with what is put on it, and the decodings to try. adapter: a folder that `load_vlm` takes, or None."""

    name: str
    folder: Path
    adapter: Path | None = None
    decodings: tuple[str, ...] = ("greedy", "shift")


@dataclass(frozen=True)
class Evaluated:
    """What came of a system: its answers (see `suite.record`), its parameters, its rows of the results table."""

    answers: list[dict]
    parameters: int
    rows: list[dict]


@dataclass(frozen=True)
class Data:
    """A folder with val, test, examples_val and examples_test, and how its dataset words questions.

    distortion: the view and its strength that contrastive decoding compares with.
    """

    folder: Path
    wording: Wording
    distortion: tuple[str, float]


def evaluate(
    systems: Sequence[System], data: Data, settings: Settings, *, bootstrap: int, kept: Path
) -> dict[str, Evaluated]:
    """Every system's answers and rows, by name, in the order given. kept: a folder for finished systems; a killed run goes on from there."""
    examples = {split: load_examples(data.folder / f"examples_{split}") for split in ("val", "test")}
    longest_first = sorted(systems, key=lambda system: -len(system.decodings))
    jobs = [partial(evaluate_one, system, data, examples, settings, bootstrap, kept) for system in longest_first]
    found = dict(zip((system.name for system in longest_first), side_by_side(jobs), strict=True))
    return {system.name: found[system.name] for system in systems}


def load_split(
    vlm: VLM, data: Data, name: str, examples: Sequence[dict] | None = None, *, distorted: bool = False, seed: int = 0
) -> Split:
    """The split ("val" or "test") as the model sees it. distorted: also the views of `data.distortion`; seed: of these."""
    shown = load_pictures(data.folder / name)
    clean = encode_all({"": vlm}, shown)[""]
    view, strength = data.distortion
    views = distorted_views(vlm, shown, clean, view, strength, seed=seed) if distorted else []
    features, *several = (dict(zip(shown.ids, images, strict=True)) for images in (clean, *views))
    return Split(examples or load_examples(data.folder / f"examples_{name}"), features, several, view, data.wording)


def evaluate_one(
    system: System, data: Data, examples: Mapping[str, list[dict]], settings: Settings, bootstrap: int, kept: Path
) -> Evaluated:
    """One system: its answers are read from `kept` if model, data, code and settings are what they were."""
    vlm = load_vlm(system.folder, adapter=system.adapter)

    def ask() -> list[dict]:
        how = {"distorted": "contrastive" in system.decodings, "seed": settings.seed}
        val, test = (load_split(vlm, data, name, examples[name], **how) for name in ("val", "test"))
        return answers_of(vlm, val, test, system.decodings, settings)

    models = [folder for folder in (system.folder, system.adapter) if folder]
    seen = [data.folder / part for part in ("val", "test", "examples_val", "examples_test")]
    key = fingerprint(*models, *seen, CODE, system=asdict(system), distortion=data.distortion, settings=asdict(settings))
    answers = resumed(kept / f"{system.name}.jsonl", key, ask)
    rows = table_rows(system.name, answers, names=settings.names, draws=bootstrap, seed=settings.seed)
    return Evaluated(answers, vlm.parameters_count(), rows)
