"""What is there, what is missing and what is wrong with data on disk, and which training pictures a benchmark also has."""

import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from hkd_core.common.errors import UserError
from hkd_core.common.progress import progress
from hkd_core.data.leaks import HASH_SIZE, Leak, by_looks, by_number, difference_hash, united
from hkd_core.sources.coco import read_ids
from hkd_core.sources.reading import read_sources
from hkd_core.sources.source import Shown, Source, find_pictures

SHOWN = 20  # problems of one data set that are printed; JSON has all


@dataclass
class Checked:
    """A source whose pictures were looked for and opened. hashes: image_id -> difference hash, None for a plain picture."""

    source: Source
    shown: Shown
    hashes: dict[str, np.ndarray | None] = field(default_factory=dict)
    unreadable: int = 0

    @property
    def names(self) -> list[str]:
        """The pictures' names as the files have them."""
        return list(self.source.pictures.values())

    def report(self) -> dict:
        """Counts, `absent` parts, `problems`, as the command prints them."""
        source = self.source
        counts = {"rows": len(source.examples), "pictures": len(source.pictures), "found": len(self.shown.ids)}
        counts |= {"unreadable": self.unreadable, "problems": len(source.problems)}
        more = {"folder": None if self.shown.root is None else str(self.shown.root), "files": [str(path) for path in source.paths]}
        listed = {"parts": dict(source.parts), "absent": source.absent, "wrong": source.problems}
        return {"kind": source.kind, "variant": source.variant} | counts | more | listed


def check_source(source: Source, pictures: str | Path | None = None, *, needed: bool = True) -> Checked:
    """Look for every picture of a source and decode it; what is wrong is added to the source's problems.

    pictures: their folder, else the usual places. needed: missing pictures are a problem.
    """
    checked = Checked(source, find_pictures(source, pictures))
    lacking = checked.shown.missing()
    if needed and lacking:
        source.problems.append(lacking)
    if not source.examples and not source.problems:
        source.problems.append(f"{source.paths[0]}: no usable rows in it")

    def look(image_id: str) -> np.ndarray | str:
        try:
            return checked.shown.thumbnail(image_id, HASH_SIZE)
        except UserError as error:
            return str(error)

    ids = checked.shown.ids
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        parts = (ids[k : k + 512] for k in range(0, len(ids), 512))
        looks = (pair for part in parts for pair in zip(part, pool.map(look, part), strict=True))
        with progress(
            desc=f"pictures of {source.paths[0].name}", unit="pic", total=len(ids), leave=False, disable=len(ids) < 200
        ) as bar:
            for image_id, found in looks:
                bar.update()
                if isinstance(found, str):
                    checked.unreadable += 1
                    source.problems.append(found)
                else:
                    checked.hashes[image_id] = difference_hash(found)
    return checked


def check(path: str | Path, *, pictures: str | Path | None = None, ids: str | Path | None = None) -> list[Checked]:
    """Every data set at `path`, checked. Raises UserError as `read_sources`, and if `pictures` is no folder."""
    return [check_source(source, pictures) for source in read_sources(path, ids=ids)]


def benchmark_pictures(
    paths: Sequence[str | Path], pictures: str | Path | None = None, ids: str | Path | None = None
) -> list[Checked]:
    """The pictures of benchmarks: data sets, or lists of pictures (see `coco.read_ids`). Pictures that are not there are known by name.

    Raises UserError for a path that names no picture, and for a data set with a problem.
    """
    found = []
    for path in paths:
        try:
            sources = read_sources(path, ids=ids)
        except UserError as error:
            sources = [_list_of_pictures(Path(path), error)]
        found += [check_source(source, pictures, needed=False) for source in sources]
    wrong = next((one.source.problems[0] for one in found if one.source.problems), None)
    if wrong:
        raise UserError(wrong)
    return found


def _list_of_pictures(path: Path, error: UserError) -> Source:
    if not path.is_file():
        raise error
    names = read_ids(path)
    row = {"task": "caption", "prompt": "", "choices": [], "answer": "", "objects": []}
    examples = [row | {"image_id": name} for name in names]
    return Source(
        "list", [path], "a list of pictures", examples, {name: name for name in names}, {name: str(path) for name in names}
    )


def leaks(train: Iterable[Checked], benchmarks: Iterable[Checked]) -> list[Leak]:
    """Training pictures that also stand in a benchmark, each once: by number, then by looks where both pictures are there."""
    train, benchmarks = list(train), list(benchmarks)
    names = list(dict.fromkeys(name for one in train for name in one.names))
    numbered = [by_number(names, one.names, genome=one.source.genome) for one in benchmarks]
    seen = [by_looks(_hashes(train), one_by_name) for one_by_name in map(_hashes, ([one] for one in benchmarks))]
    return united(*numbered, *seen)


def _hashes(several: Sequence[Checked]) -> Mapping[str, np.ndarray | None]:
    return {one.source.pictures[image_id]: found for one in several for image_id, found in one.hashes.items()}
