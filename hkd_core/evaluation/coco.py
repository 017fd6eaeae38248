"""What is in each picture, for CHAIR: from COCO's own annotation files, published CHAIR results, or lists of names.

Ground truth of the published metric is the union of COCO's instances and of the objects in people's captions, so several files
may be given. Pictures are known by COCO's number, however a file writes it.
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from hkd_core.common.errors import UserError
from hkd_core.evaluation.records import IMAGE, Record, picture_key
from hkd_core.evaluation.rows import after_blank, decoded, json_values, read_bytes, rows_of, shown

SENTENCE_END = re.compile(r"[.!?]['\")\]]*(?=\s|$)")
Read = Callable[[str], list[str]]  # a caption -> names of its objects


@dataclass
class GroundTruth:
    """objects: picture -> names; where: picture -> the place that named it first; given: picture -> its name as the file has it."""

    objects: dict[str, list[str]] = field(default_factory=dict)
    given: dict[str, tuple[str, str]] = field(default_factory=dict)
    of_coco: str = ""  # an instances file, if one is among the files

    def add(self, path: str, picture: object, names: Iterable[str], where: str) -> None:
        """Raises UserError for a picture that no number or text names, or for two names of one file that mean the same picture."""
        if isinstance(picture, bool) or not isinstance(picture, str | int | float):
            raise UserError(f"{where}: expected a picture's number or name, got {shown(picture)}")
        if isinstance(picture, float) and not picture.is_integer():
            raise UserError(f"{where}: expected a whole number or a name, got {shown(picture)}")
        text = str(int(picture)) if isinstance(picture, float) else str(picture)
        key = picture_key(text)
        first_path, first = self.given.setdefault(key, (path, text))
        if first_path == path and first != text:
            raise UserError(f"{where}: {shown(text)} and {shown(first)} are the same picture")
        self.objects.setdefault(key, []).extend(names)


def read_objects(paths: Sequence[str], read: Read | None) -> GroundTruth:
    """The union of all files. read: finds the objects of people's captions; None refuses captions, as without a vocabulary.

    Raises UserError naming file and entry.
    """
    found = GroundTruth()
    for path in paths:
        data = read_bytes(path)
        start = decoded(path, data) if data[:4] not in (b"PAR1", b"PK\x03\x04") else ""
        first = after_blank(start)
        values = list(json_values(path, start)) if start[first : first + 1] in ("{", "[") else []
        value = values[0][1] if len(values) == 1 else None
        if isinstance(value, dict) and isinstance(value.get("annotations"), list):
            from_coco(path, value, read, found)
        elif isinstance(value, dict) and isinstance(value.get("sentences"), list):
            from_results(path, value["sentences"], found)
        elif isinstance(value, dict) and not set(IMAGE) & set(value):
            for picture, names in value.items():
                found.add(path, picture, names_of(f"{path}: {shown(picture)}", names), f"{path}: {shown(picture)}")
        else:
            seen: dict[str, str] = {}
            for record in records_of(path, data, values):
                key = record.key("image_id", *IMAGE)
                if picture_key(key) in seen:
                    raise record.fail(f"{shown(key)} occurs twice, first at {seen[picture_key(key)]}")
                seen[picture_key(key)] = record.where
                found.add(path, key, names_of(record.where, record.get("objects")), record.where)
    if not found.objects:
        raise UserError(f"{paths[0]}: names no picture")
    return found


def records_of(path: str, data: bytes, values: list[tuple[int, object]]) -> list[Record]:
    """The rows of a file whose JSON values were read, or of a table."""
    if not values:
        return [Record(fields, where) for where, fields in rows_of(path, data)]
    items = []
    for line, value in values:
        listed = value if isinstance(value, list) else [value]
        items += [(f"{path}:{line}" if listed is not value else f"{path}: item {n}", item) for n, item in enumerate(listed, 1)]
    for where, item in items:
        if not isinstance(item, dict):
            raise UserError(f"{where}: expected an object that maps image_id to a list of names, or lines {{image, objects}}")
    return [Record(item, where) for where, item in items]


def names_of(where: str, names: object) -> list[str]:
    """Raises UserError unless it is a list of names with a letter in each."""
    if not isinstance(names, list):
        raise UserError(f"{where}: expected a list of names, got {shown(names)}")
    for name in names:
        if not isinstance(name, str):
            hint = "; category numbers need COCO's instances file itself as --objects" if isinstance(name, int) else ""
            raise UserError(f"{where}: expected names of objects, got {shown(name)}{hint}")
        if not re.search(r"[A-Za-z]", name):
            raise UserError(f"{where}: expected a name with letters a to z, got {shown(name)}")
    return names


def from_coco(path: str, value: Mapping, read: Read | None, found: GroundTruth) -> None:
    """instances_*.json (category numbers) or captions_*.json (people's captions). Pictures without annotation have no objects."""
    categories: dict[object, str] = {}
    for number, category in enumerate(objects_in(path, value, "categories"), 1):
        where = f'{path}: "categories" item {number}'
        names_of(where, [category.get("name")])
        categories[whole(category.get("id"))] = category["name"]
    for number, image in enumerate(objects_in(path, value, "images"), 1):
        found.add(path, image.get("id"), [], f'{path}: "images" item {number}')
    for number, annotation in enumerate(objects_in(path, value, "annotations"), 1):
        where = f'{path}: "annotations" item {number}'
        if isinstance(annotation.get("caption"), str):
            if read is None:
                raise UserError(f"{path}: people's captions need --coco or --synonyms, which say what an object is")
            names = read(annotation["caption"])
        else:
            name = categories.get(whole(annotation.get("category_id")))
            if name is None:
                raise UserError(f"{where}: no category has the id {shown(annotation.get('category_id'))}")
            names, found.of_coco = [name], path
        found.add(path, annotation.get("image_id"), names, where)


def whole(value: object) -> object:
    """A category's number as text; 18 and 18.0 are the same."""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value) if isinstance(value, str | int) else None


def objects_in(path: str, value: Mapping, name: str) -> list[dict]:
    items = value.get(name) or []
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise UserError(f'{path}: "{name}": expected a list of objects')
    return items


def from_results(path: str, sentences: Sequence[object], found: GroundTruth) -> None:
    """What the published script and its descendants write: {"sentences": [{"image_id", "mscoco_gt_words", ...}]}."""
    for number, sentence in enumerate(sentences, 1):
        where = f'{path}: "sentences" item {number}'
        if not isinstance(sentence, dict) or "mscoco_gt_words" not in sentence:
            raise UserError(f'{where}: missing "mscoco_gt_words"')
        found.add(path, sentence.get("image_id"), names_of(where, sentence["mscoco_gt_words"]), where)


def finished(caption: str) -> str:
    """The caption without its unfinished last sentence, as after a cut at 64 tokens. Without a finished one it stays whole."""
    ends = [end.end() for end in SENTENCE_END.finditer(caption)]
    return caption[: ends[-1]] if ends else caption
