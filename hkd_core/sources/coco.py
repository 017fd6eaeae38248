"""COCO's annotations as captioning examples for CHAIR: what is in each picture, from instances and people's captions together.

As published (arXiv 1809.02156): the names of the 80 categories, and the objects that the five captions of a picture name.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.evaluation.chair import coco_vocabulary, mentioned
from hkd_core.evaluation.coco import GroundTruth, from_coco, objects_in
from hkd_core.evaluation.records import IMAGE, Record, picture_key
from hkd_core.evaluation.rows import decoded, json_values, read_bytes, rows_of, shown
from hkd_core.sources.source import Source

PROMPT = "Please describe this image in detail."  # everywhere in published CHAIR scores


def read(files: Mapping[Path, Mapping], ids: Path | None = None) -> Source:
    """Examples of the task "caption" with `objects`: the canonical names of what is there.

    files: path -> the value of an instances or captions file. ids: a file of the pictures to take, in its order (see `read_ids`).
    """
    source, truth, vocabulary = Source("coco", list(files)), GroundTruth(), coco_vocabulary()
    wanted = [] if ids is None else read_ids(ids)
    chosen, names, kinds = {picture_key(name) for name in wanted}, {}, set()
    for path, value in files.items():
        with source.noting():
            images = _placed(path, value, "images", "id", chosen)
            annotations = _placed(path, value, "annotations", "image_id", chosen)
            for number, image in images:
                name = image.get("file_name") or f"COCO_val2014_{int(picture_key(str(image['id']))):012d}.jpg"
                names.setdefault(picture_key(str(image["id"])), (str(name), f'{path}: "images" item {number}'))
            strangers = [(n, one) for n, one in annotations if picture_key(str(one["image_id"])) not in names] if images else []
            if strangers:
                place = f'{path}: "annotations" item {strangers[0][0]}'
                raise UserError(
                    f'{place}: picture {shown(strangers[0][1]["image_id"])} is not among "images" ({len(strangers)} such)'
                )
            held = {**value, "images": [one for _, one in images], "annotations": [one for _, one in annotations]}
            from_coco(str(path), held, lambda caption: mentioned(caption, vocabulary), truth)
            kinds.add("captions" if any("caption" in one for _, one in annotations) else "instances")
    source.absent = sorted({"captions", "instances"} - kinds)
    missing = [name for name in wanted if picture_key(name) not in names and picture_key(name) not in truth.objects]
    if missing:
        source.problems.append(
            f"{ids}: {len(missing)} of {len(wanted)} pictures are not in the annotations, the first {missing[0]}"
        )
    for key in map(picture_key, wanted) if wanted else names or truth.objects:
        with source.noting():
            if key not in truth.objects:
                continue
            name, where = names.get(key, (f"COCO_val2014_{key:0>12}.jpg", f"{source.paths[0]}: picture {key}"))
            there = sorted(vocabulary.canonical(truth.objects[key]))
            row = {"task": "caption", "prompt": PROMPT, "objects": there, "meta": {"image_id": key}}
            source.add(Record({}, where), _edition(name), name, row)
    of = f", the {len(wanted)} pictures of {ids}" if wanted else ""
    source.variant = f"{' and '.join(sorted(kinds)) or 'nothing usable'}{of}"
    if source.absent and kinds:
        source.variant += f"; CHAIR's published ground truth needs {source.absent[0]} too"
    return source


def _placed(path: Path, value: Mapping, name: str, key: str, chosen: set[str]) -> list[tuple[int, dict]]:
    """(number from 1, item) of a list whose items name a picture under `key`; only the chosen pictures, or all if none is chosen."""
    found = []
    for number, item in enumerate(objects_in(str(path), value, name), 1):
        given = item.get(key)
        if isinstance(given, bool) or not isinstance(given, int | str) or not re.fullmatch(r"\d{1,12}", picture_key(str(given))):
            raise UserError(f'{path}: "{name}" item {number}: "{key}" must be a picture\'s number, got {shown(given)}')
        if not chosen or picture_key(str(given)) in chosen:
            found.append((number, item))
    return found


def _edition(name: str) -> str:
    found = re.search(r"(?:train|val|test)20\d\d", name)
    return found.group(0) if found else "pictures"


def read_ids(path: str | Path) -> list[str]:
    """A published list of pictures: one number or name a line, a JSON array of them, or rows with `image_id` (as captions have).

    Each picture once. Raises UserError naming file and line.
    """
    data = read_bytes(path)
    text = decoded(path, data) if data[:4] not in (b"PAR1", b"PK\x03\x04") else ""
    lines = [(number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if lines and all(re.fullmatch(r"[\w./-]+", line) for _, line in lines):
        named = [(f"{path}:{number}", line) for number, line in lines]
    elif text.lstrip().startswith("[") and len(values := list(json_values(path, text))) == 1 and _plain(values[0][1]):
        named = [(f"{path}: item {number}", str(one)) for number, one in enumerate(values[0][1], 1)]
    else:
        records = [Record(fields, where) for where, fields in rows_of(path, data)]
        named = [(record.where, record.key("image_id", *IMAGE)) for record in records]
    seen: dict[str, str] = {}
    for where, name in named:
        first = seen.setdefault(picture_key(name), where)
        if first != where:
            raise UserError(f"{where}: {shown(name)} occurs twice, first at {first}")
    if not seen:
        raise UserError(f"{path}: names no picture")
    return [name for _, name in named]


def _plain(value: object) -> bool:
    return (
        isinstance(value, list) and bool(value) and all(isinstance(one, int | str) and not isinstance(one, bool) for one in value)
    )


def is_annotation(value: object) -> bool:
    return isinstance(value, Mapping) and isinstance(value.get("annotations"), Sequence) and "images" in value
