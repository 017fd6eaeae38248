"""The one schema of pictures and examples that the built-in world and real benchmarks share, on disk as `datasets`.

A picture is stored once (`pictures`), its many examples name it by `image_id` (`examples`). Pictures that are files already are not
copied: `save_picture_paths` stores where they are, and `load_pictures` opens each when it is asked for.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets import Dataset, Features, Image, List, Value, disable_progress_bars, load_from_disk
from PIL import Image as PILImage

from hkd_core.common.errors import UserError
from hkd_core.common.files import read_json, write_folder, write_json
from hkd_core.data.pictures import PictureFolder, as_rgb, check_name, open_picture

PICTURE_FEATURES = Features(
    {"image_id": Value("string"), "image": Image(), "objects": List(Value("string")), "graph": Value("string")}
)
PATH_FEATURES = Features({"image_id": Value("string"), "path": Value("string"), "objects": List(Value("string"))})
ROOT_FILE = "root.json"  # beside PATH_FEATURES: the folder that paths start from, relative to the folder of the file
EXAMPLE_FEATURES = Features(
    {
        "image_id": Value("string"),
        "task": Value("string"),
        "prompt": Value("string"),
        "choices": List(Value("string")),
        "answer": Value("string"),
        "caption": Value("string"),
        "context": Value("string"),
        "claim": Value("string"),
        "objects": List(Value("string")),
        "meta": Value("string"),  # JSON
    }
)


class Pictures(Sequence):
    """Stored pictures, decoded when asked for. `ids` in order; `table` holds objects and graphs.

    files: the folder of the files, where the table holds their paths; else it holds the pictures.
    """

    def __init__(self, table: Dataset, where: str, files: PictureFolder | None = None):
        self.table, self.where, self.files = table, where, files
        self.ids: list[str] = list(table["image_id"])
        self.index = {image_id: i for i, image_id in enumerate(self.ids)}  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, i):
        """A PIL image, or a list of them for a slice. Raises UserError naming the picture that is missing or corrupt."""
        if isinstance(i, slice):
            return [self[k] for k in range(*i.indices(len(self)))]
        if self.files is not None:
            return open_picture(self.path(i))
        try:
            return as_rgb(self.table[i]["image"])
        except (OSError, SyntaxError, AttributeError, ValueError, PILImage.DecompressionBombError) as error:
            raise UserError(f"{self.where}: picture {self.ids[i]}: missing or corrupt: {error}") from error

    def path(self, i: int) -> Path:
        """The file of picture i. Raises UserError if its stored path leads out of the folder."""
        try:
            return self.files.path(self.table[i]["path"])
        except UserError as error:
            raise UserError(f"{self.where}: picture {self.ids[i]}: {error}") from None


def save_pictures(folder: str | Path, rows: Iterable[dict]) -> Path:
    """Write pictures, whole or not at all.

    rows: image_id, image (a picture [H, W, 3] uint8), objects (names that are there), graph (JSON text, "" if there is none).
    """
    stored = [row | {"image": PILImage.fromarray(row["image"])} for row in rows]
    return _save(folder, stored, PICTURE_FEATURES)


def save_picture_paths(
    folder: str | Path, root: str | Path, paths: Mapping[str, str], objects: Mapping[str, Sequence[str]] | None = None
) -> Path:
    """Write where pictures are, whole or not at all; the pictures stay where they are.

    root: their folder; paths: image_id -> path inside it; objects: image_id -> names of what is there, where that is known.
    Raises UserError for a path that leads out of `root`.
    """
    for image_id, path in paths.items():
        try:
            check_name(path)
        except UserError as error:
            raise UserError(f"{folder}: picture {image_id}: {error}") from None
    rows = [{"image_id": name, "path": path, "objects": list((objects or {}).get(name, ()))} for name, path in paths.items()]
    start = os.path.relpath(Path(root).resolve(), Path(folder).resolve())
    return _save(folder, rows, PATH_FEATURES, start)


def save_examples(folder: str | Path, rows: Sequence[dict]) -> Path:
    """Write examples (rows of EXAMPLE_FEATURES, `meta` a dict), whole or not at all; an answer "" is unknown. Raises UserError naming an answer that is no choice."""
    for i, row in enumerate(rows):
        if row["answer"] and row["choices"] and row["answer"] not in row["choices"]:
            raise UserError(f'{folder}: example {i}: answer must be one of {row["choices"]}, got "{row["answer"]}"')
    return _save(folder, [row | {"meta": json.dumps(row["meta"])} for row in rows], EXAMPLE_FEATURES)


def _save(folder: str | Path, rows: list[dict], features: Features, root: str | None = None) -> Path:
    disable_progress_bars()

    def fill(fresh: Path) -> None:
        Dataset.from_list(rows, features=features).save_to_disk(fresh)
        # The fingerprint is random; without it the same rows give the same bytes.
        state = fresh / "state.json"
        content = json.loads(state.read_text())
        content["_fingerprint"] = "0" * 16
        state.write_text(json.dumps(content, indent=2, sort_keys=True))
        if root is not None:
            write_json(fresh / ROOT_FILE, {"root": root})

    return write_folder(folder, fill)


def load_pictures(folder: str | Path, root: str | Path | None = None) -> Pictures:
    """Stored pictures, or those whose paths are stored. root: where their files are now, if not where they were.

    Raises UserError naming the folder if it is not there or not of this schema, and if the folder of the files is not there.
    """
    file = Path(folder) / ROOT_FILE
    if not file.is_file():
        return Pictures(_load(folder, PICTURE_FEATURES), str(folder))
    held = read_json(file)
    if not isinstance(held, dict) or not isinstance(held.get("root"), str):
        raise UserError(f'{file}: expected {{"root": FOLDER}}')
    start = Path(root) if root is not None else Path(os.path.normpath(Path(folder).resolve() / held["root"]))
    return Pictures(_load(folder, PATH_FEATURES), str(folder), PictureFolder(start))


def load_examples(folder: str | Path, *tasks: str) -> list[dict]:
    """All examples, or those of the named tasks, with `meta` as a dict. Raises UserError if there are none."""
    table = _load(folder, EXAMPLE_FEATURES)
    rows = [row | {"meta": json.loads(row["meta"] or "{}")} for row in table if not tasks or row["task"] in tasks]
    if not rows:
        raise UserError(f"{folder}: no examples of task {', '.join(tasks)}")
    return rows


def _load(folder: str | Path, features: Features) -> Dataset:
    disable_progress_bars()
    try:
        table = load_from_disk(str(folder))
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: no dataset here; `dvc repro` makes it ({str(error).splitlines()[0]})") from error
    missing = set(features) - set(table.column_names)
    if missing:
        raise UserError(f"{folder}: columns missing: {', '.join(sorted(missing))}")
    return table
