"""What a reader finds on disk: examples in the one schema, the pictures they need, and everything that is wrong, by file and line."""

import contextlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from hkd_core.common.errors import UserError
from hkd_core.common.files import write_folder
from hkd_core.data.pictures import PictureFolder, check_name, grey, open_picture, thumbnail
from hkd_core.data.schema import Pictures, save_examples, save_picture_paths, save_pictures
from hkd_core.evaluation.records import Record

YES_NO = ["Yes", "No"]
# Folders in which pictures usually are, seen from a data file's folder or one of the three above it.
USUAL = ("", "images", "image", "pictures", "val2014", "train2014", "train2017", "coco/val2014", "coco", "hallusion_bench", "AMBER")
PROBE = 20  # names that are looked up to choose between these


@dataclass
class Source:
    """One data set on disk.

    kind: "pope", "coco", "mme", "amber", "hallusion", "challenge", "llava" or "table"; paths: its files; variant: which edition, in
    words. examples: rows of the schema (`meta` a dict). pictures: image_id -> the picture's name in the files. places: image_id -> where
    a file names it first. parts: how many examples of each split, subtask or type. absent: parts of the data set that are not here.
    problems: one line each; a row with a problem is no example. genome: bare numbers of pictures are Visual Genome's. stored: pictures that came with the examples, as from the hub.
    """

    kind: str
    paths: list[Path]
    variant: str = ""
    examples: list[dict] = field(default_factory=list)
    pictures: dict[str, str] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    parts: Counter = field(default_factory=Counter)
    absent: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    genome: bool = False
    stored: Pictures | None = None

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """A UserError raised inside becomes a problem."""
        try:
            yield
        except UserError as error:
            self.problems.append(" ".join(str(error).split()))

    def add(self, record: Record, part: str, picture: str, row: dict, *, image_id: str = "") -> None:
        """One example, of `part`. picture: its name as the file has it, "" for none; image_id: if not that name. row: see `example`.

        Raises UserError, naming the record, for a picture's name that leaves its folder, and for text that cannot be stored.
        """
        image_id = image_id or picture
        if picture and image_id not in self.pictures:
            try:
                check_name(picture)
            except UserError as error:
                raise record.fail(str(error)) from None
            self.pictures[image_id], self.places[image_id] = picture, record.where
        made = example(image_id, **row)
        try:
            "".join(held if isinstance(held, str) else "".join(held) for name, held in made.items() if name != "meta").encode()
        except UnicodeEncodeError:
            raise record.fail("holds half a character (a lone surrogate), which no file can store") from None
        self.examples.append(made)
        self.parts[part] += 1


def example(image_id: str, *, task: str, prompt: str, answer: str = "", choices: Sequence[str] = (), **more: object) -> dict:
    """A row of `schema.EXAMPLE_FEATURES` with nothing in the fields that are not given."""
    row: dict = {"image_id": image_id, "task": task, "prompt": prompt, "choices": list(choices), "answer": answer}
    return row | {"caption": "", "context": "", "claim": "", "objects": [], "meta": {}} | more


@dataclass
class Shown:
    """The pictures of a source that are there: in files (`paths`: image_id -> path inside `root`), or stored with the examples."""

    source: Source
    root: Path | None = None
    paths: dict[str, str] = field(default_factory=dict)
    stored: Pictures | None = None

    @property
    def ids(self) -> list[str]:
        return list(self.paths) if self.stored is None else self.stored.ids

    def open(self, image_id: str) -> Image.Image:
        """Raises UserError naming the file, or the stored picture, that cannot be read."""
        if self.stored is not None:
            return self.stored[self.stored.index[image_id]]
        return open_picture(self.root / self.paths[image_id])

    def thumbnail(self, image_id: str, size: tuple[int, int]) -> np.ndarray:
        """As `pictures.thumbnail`."""
        if self.stored is not None:
            return grey(self.open(image_id), size)
        return thumbnail(self.root / self.paths[image_id], size)

    def missing(self) -> str | None:
        """How many pictures are missing, the first, and what names it; None if all are there."""
        there = set(self.ids)
        missing = [name for name in self.source.pictures if name not in there]
        if not missing:
            return None
        first = f"the first {self.source.pictures[missing[0]]}, named at {self.source.places[missing[0]]}"
        if self.root is None:
            hint = "say where they are with --pictures FOLDER"
            return f"{self.source.paths[0]}: none of its {len(missing)} pictures is beside it, {first}; {hint}"
        return f"{self.root}: {len(missing)} of {len(self.source.pictures)} pictures are missing, {first}"


def find_pictures(source: Source, folder: str | Path | None = None) -> Shown:
    """The pictures that are there.

    folder: where to look; else the usual places beside the files, the one that has most of the first names. Links that lead out of the
    folder are noted as problems of the source. Raises UserError if `folder` is none.
    """
    if source.stored is not None or not source.pictures:
        return Shown(source, stored=source.stored)
    root = Path(folder) if folder is not None else _usual_folder(source)
    shown = Shown(source, root)
    if root is None:
        return shown
    inside = PictureFolder(root)
    for image_id, name in source.pictures.items():
        try:
            path = inside.find(name)
        except UserError as error:
            source.problems.append(f"{source.places[image_id]}: {error}")
            continue
        if path is not None:
            shown.paths[image_id] = path
    return shown


def _usual_folder(source: Source) -> Path | None:
    names = list(source.pictures.values())[:PROBE]
    best: tuple[int, Path | None] = (0, None)
    for start in dict.fromkeys(path if path.is_dir() else path.parent for path in source.paths):
        for folder in (start, *list(start.resolve().parents)[:3]):
            for inner in USUAL:
                root = folder / inner
                if not root.is_dir():
                    continue
                count = sum((root / name).is_file() or (root / f"{name}.jpg").is_file() for name in names)
                best = max(best, (count, root), key=lambda one: one[0])
        if best[0] == len(names):
            break
    return best[1]


def save_source(folder: str | Path, source: Source, pictures: str | Path | None = None) -> Path:
    """Write `pictures` and `examples` under `folder`, as the pipeline reads them (`schema.load_pictures`, `load_examples`).

    Files of pictures stay where they are (see `find_pictures`); only their paths are written. Pictures of a hub data set are written.
    Raises UserError for the first problem of the source, and for missing pictures: how many, and the first.
    """
    shown = find_pictures(source, pictures)
    lacking = shown.missing()
    if source.problems or lacking:
        raise UserError(source.problems[0] if source.problems else lacking)
    objects = {row["image_id"]: row["objects"] for row in source.examples}
    asked = dict.fromkeys(row["image_id"] for row in source.examples if row["image_id"])

    def fill(fresh: Path) -> None:  # it stands beside `folder`, so relative paths stay right
        save_examples(fresh / "examples", source.examples)
        if shown.stored is not None:
            rows = ({"image_id": i, "image": np.asarray(shown.open(i)), "objects": objects.get(i, []), "graph": ""} for i in asked)
            save_pictures(fresh / "pictures", rows)
        elif shown.root is not None:
            save_picture_paths(fresh / "pictures", shown.root, {name: shown.paths[name] for name in asked}, objects)

    return write_folder(folder, fill)
