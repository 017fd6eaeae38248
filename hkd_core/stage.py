"""What the runner of notebooks does for a stage of the pipeline: is there room for its outputs, and where do its checkpoints stand?"""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import yaml

from hkd_core.common.errors import UserError
from hkd_core.common.files import fingerprint, read_text
from hkd_core.common.folders import Folders
from hkd_core.common.params import chosen_profile, load_profile, load_seed

SLACK = 50  # MiB beside what a stage writes: temporary files, checkpoints, an executed notebook that failed


def check_room(root: Path, stage: str) -> None:
    """Is there room for what a stage writes, and for the copy that DVC's cache keeps? By the sizes of its last run in dvc.lock.

    stage: as DVC names it, for instance data@laptop or reports/seeds/dvc.yaml:seeds@laptop. One that never ran here is not checked.
    Raises UserError with what is there and what is needed.
    """
    file, _, name = stage.rpartition(":")
    lock = (root / file).with_name("dvc.lock") if file else root / "dvc.lock"
    try:
        known = yaml.safe_load(read_text(lock))["stages"] if lock.is_file() else {}
        needed = 2 * sum(out.get("size", 0) for out in known.get(name, {}).get("outs", [])) / 2**20
    except (yaml.YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{lock}: not a lock file of DVC: {type(error).__name__}") from error
    free = shutil.disk_usage(root).free / 2**20
    if free < needed + SLACK:
        raise UserError(
            f"{root}: {free:.0f} MiB free on this disk; stage {stage} needs {needed + SLACK:.0f}, of which DVC's cache takes {needed / 2:.0f}"
        )


@contextmanager
def checkpoints_of(root: Path, stage: str, more: Sequence[str]) -> Iterator[Path]:
    """The folder for the checkpoints of a stage's trainings, removed once the stage has ended well.

    It is named by all that the stage may depend on: code, settings, seed, data, models, and `more`. So a stage that was killed finds its
    checkpoints again, and none of a run with anything else. Those are removed.
    """
    path = root / "params.yaml"
    folders = Folders(root, chosen_profile(path))
    about = {"settings": load_profile(path=path).model_dump(), "seed": load_seed(path=path), "more": list(more)}
    key = fingerprint(root / "hkd_core", root / "build/code", folders.data, folders.models, **about)[:16]
    name = stage.replace("/", "_").replace(":", "_")
    chosen = root / "build/checkpoints" / f"{name}-{key}"
    for other in chosen.parent.glob(f"{name}-*"):
        if other != chosen:
            shutil.rmtree(other, ignore_errors=True)
    yield chosen
    shutil.rmtree(chosen, ignore_errors=True)
