"""Which data sets are at a path: a file, a folder of files in official layouts, or a data set of the Hugging Face hub.

`read_sources` is the one door. It recognises each file by what is in it, and hands the files of one data set to its reader together.
"""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hkd_core.common.errors import UserError
from hkd_core.data.pictures import ENDINGS
from hkd_core.evaluation.matching import question_text
from hkd_core.evaluation.pope_files import splits_named
from hkd_core.evaluation.records import LABEL, QUESTION, Record, flattened
from hkd_core.evaluation.rows import after_blank, decoded, json_values, read_bytes, rows_of, shown
from hkd_core.sources import amber, challenge, coco, hallusion, hub, mme, pope, training
from hkd_core.sources.source import Source

READABLE = (".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".parquet", ".xlsx")
OTHERS = re.compile(r"person_keypoints|image_info|stuff_")  # COCO's files that hold neither instances nor captions
PRESENCE = re.compile(r"\s*is there an? .+ in the im", re.IGNORECASE)
EXPECTED = "POPE, COCO, MME, AMBER, HallusionBench, the challenge, LLaVA's conversations, or rows with image, prompt and answer"
Content = Any  # the records of a file, or the value of one of COCO's
# kind -> (its reader, whether several files are one data set)
READERS: dict[str, tuple[Callable[[Mapping[Path, Sequence[Record]]], Source], bool]] = {
    "pope": (pope.read, True),
    "amber": (amber.read, True),
    "challenge": (challenge.read, True),
    "hallusion": (hallusion.read, False),
    "mme": (mme.read_table, False),
    "llava": (training.read_llava, False),
    "table": (training.read_table, False),
}


def read_sources(path: str | Path, *, ids: str | Path | None = None) -> list[Source]:
    """Every data set at `path`: a file, a folder, or "hub:OWNER/NAME[/CONFIG]".

    ids: a list of pictures to take of COCO's (see `coco.read_ids`). What is wrong in a file is among its source's `problems`. Raises
    UserError for a path that is not there, a file that cannot be read, and where nothing is recognised.
    """
    if str(path).startswith(hub.PREFIX):
        return [_from_hub(str(path))]
    path = Path(path)
    try:
        there, folder = path.exists(), path.is_dir()
    except (OSError, ValueError) as error:
        raise UserError(f"{str(path)!a}: cannot be read: {error}") from error
    if not there:
        raise UserError(f"{path}: no such file or folder")
    ids = None if ids is None else Path(ids)
    return _read_folder(path, ids) if folder else _read_file(path, ids)


def read_source(path: str | Path, *, ids: str | Path | None = None, kind: str | None = None) -> Source:
    """The one data set at `path`, or the one of that kind. Raises UserError as `read_sources`, if there are several, and for a problem."""
    found = [source for source in read_sources(path, ids=ids) if kind in (None, source.kind)]
    if len(found) != 1:
        held = f"{len(found)}: {', '.join(source.kind for source in found)}" if found else "none"
        raise UserError(f"{path}: expected one data set{f' of kind {kind}' if kind else ''}, got {held}")
    if found[0].problems:
        raise UserError(found[0].problems[0])
    return found[0]


def _read_file(path: Path, ids: Path | None) -> list[Source]:
    kind, content = _recognised(path)
    if kind == "coco":
        return [coco.read({path: content}, ids)]
    if kind is None:
        raise not_recognised(path, content[0])
    files = {path: content}
    if kind == "amber":
        files |= _other_half(path, content)
    return [READERS[kind][0](files)]


def not_recognised(path: str | Path, record: Record) -> UserError:
    return UserError(f"{path}: not recognised: expected {EXPECTED}; got the fields {shown(list(record.fields))}")


def _other_half(path: Path, records: Sequence[Record]) -> dict[Path, Content]:
    """AMBER's annotations beside its queries, or the other way round, where they stand as published."""
    names = ("query/query_all.json",) if amber.is_annotation(records[0].fields) else ("annotations.json", "../annotations.json")
    other = next((path.parent / name for name in names if (path.parent / name).is_file()), None)
    return {} if other is None else {other: _recognised(other)[1]}


def _recognised(path: Path) -> tuple[str | None, Content]:
    """(kind, its records, or the value of COCO's annotation files). Raises UserError for a file that cannot be read."""
    data = read_bytes(path)
    text = decoded(path, data) if data[:4] not in (b"PAR1", b"PK\x03\x04") else ""
    if text.startswith("{", after_blank(text)):
        _, value = next(json_values(path, text))
        if coco.is_annotation(value):
            return "coco", value
    records = [Record(flattened(fields), where) for where, fields in rows_of(path, data)]
    return kind_of(records[0], path.as_posix()), records


def kind_of(record: Record, name: str) -> str | None:
    """The data set that a row is of, by its fields; name: its file's, where fields alone do not tell."""
    keys, label = set(record.fields), (record.optional(*LABEL) or "").strip().lower()
    if "conversations" in keys:
        return "llava"
    if "system1_answer" in keys or {"claim", "choices", "image_id"} <= keys:
        return "challenge"
    if {"set_id", "figure_id", "question_id"} <= keys:
        return "hallusion"
    if amber.is_annotation(record.fields) or {"id", "image", "query"} <= keys:
        return "amber"
    if (record.optional("category") or "").strip().lower() in {name.lower() for name in mme.ALL} and label in ("yes", "no"):
        return "mme"
    asks = record.picture() and question_text(record)
    if {"image", "text", "label"} <= keys or (asks and splits_named(record) and (PRESENCE.match(asks) or "pope" in name.lower())):
        return "pope"
    if asks and label in ("yes", "no") and PRESENCE.match(asks) and "pope" in name.lower():
        return "pope"
    return "table" if record.name_of(*QUESTION) and record.picture() else None


def _read_folder(folder: Path, ids: Path | None) -> list[Source]:
    """The data sets in a folder. Files that are not recognised are passed over; a file that cannot be read is a source with a problem."""
    if hub.is_local(folder):
        return [_from_hub(f"{hub.PREFIX}{folder}")]
    found: list[Source] = []
    groups: dict[str, dict] = {}
    for path in _files(folder, found):
        try:
            kind, content = _recognised(path)
        except UserError as error:
            found.append(Source("unreadable", [path], problems=[" ".join(str(error).split())]))
            continue
        if kind is not None:
            several = kind == "coco" or READERS[kind][1]
            groups.setdefault(kind if several else f"{kind} {path}", {})[path] = content
    for name, files in groups.items():
        kind = name.split()[0]
        found.append(coco.read(files, ids) if kind == "coco" else READERS[kind][0](files))
    if not found:
        raise UserError(f"{folder}: nothing recognised in it: expected {EXPECTED}")
    return found


def _files(folder: Path, found: list[Source]) -> Iterator[Path]:
    """Files that may be read, in order. MME's folders are read into `found` and not entered."""
    for where, folders, names in os.walk(folder):
        root = mme.root_of(Path(where))
        if root is not None:
            found.append(mme.read(root))
            inside = root.relative_to(where).parts
            folders[:] = [name for name in folders if name not in (*mme.ALL, *inside[:1])]
        folders.sort()
        for name in sorted(names):
            if name.lower().endswith(READABLE) and not OTHERS.search(name) and not name.lower().endswith(ENDINGS):
                yield Path(where, name)


def _from_hub(name: str) -> Source:
    records, rows, tables = hub.load(name)
    kind = kind_of(records[0], name)
    if kind is None:
        raise not_recognised(name, records[0])
    source = READERS[kind][0]({Path(name): records})
    source.stored = hub.pictures(name, source.places, rows, tables)
    return source
