"""POPE's question files: nine official sets, as JSON lines or arrays, and the tables that name the split in a column.

Official rows are {question_id, image, text, label}. The sets are COCO's, A-OKVQA's and GQA's pictures, each with three splits.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from hkd_core.data.pictures import coco_number
from hkd_core.evaluation.matching import question_text
from hkd_core.evaluation.pope import SPLITS
from hkd_core.evaluation.pope_files import split_name, splits_named
from hkd_core.evaluation.pope_scores import coco_names, variant
from hkd_core.evaluation.records import IMAGE, LABEL, QUESTION_ID, Record, asked, picture_key
from hkd_core.evaluation.rows import shown
from hkd_core.sources.source import YES_NO, Source

THING = re.compile(r"\s*is there an? (.+?) in the im")
SETS = ("coco", "aokvqa", "gqa")
Rows = dict[tuple[str, str], list[tuple[Record, str, str, str]]]  # (set, split) -> (record, picture, question, label)


def read(files: Mapping[Path, Sequence[Record]]) -> Source:
    """The questions of all files: examples of the tasks "pope_random" and so on, answers "Yes" and "No", `meta` {set, question_id}.

    Files without labels (`llava_pope_test.jsonl`) take them from the other files.
    """
    source = Source("pope", list(files), genome=True)  # COCO's pictures have their full names here, GQA's bare numbers
    rows: Rows = {}
    told = [any(record.name_of(*LABEL) for record in records) for records in files.values()]
    for path, records in files.items():
        if any(told) and not any(record.name_of(*LABEL) for record in records):
            continue  # the labelled files hold the same questions
        for place, found in _read_file(source, path, records).items():
            if place in rows and place[0] in SETS:
                source.problems.append(f"{path}: {' '.join(place)} is here twice, first at {rows[place][0][0].where}")
            else:
                rows.setdefault(place, []).extend(found)
    _same_questions(source, rows)
    for (name, split), found in rows.items():
        for record, image, question, label in found:
            with source.noting():
                meta = {"set": name, "question_id": record.key(*QUESTION_ID) if record.name_of(*QUESTION_ID) else ""}
                task = f"pope_{split}" if split in SPLITS else "pope"
                row = {"task": task, "prompt": question, "choices": YES_NO, "answer": label.capitalize(), "meta": meta}
                source.add(record, f"{name} {split}", image, row)
    source.absent = [f"{name} {split}" for name in SETS for split in SPLITS if (name, split) not in rows]
    editions = {name: _edition({split: found for (one, split), found in rows.items() if one == name}) for name, _ in rows}
    unlabelled = "" if any(told) else "; no labels in it"
    source.variant = (
        "; ".join(editions.values() if len(editions) == 1 else (f"{name}: {text}" for name, text in editions.items())) + unlabelled
    )
    return source


def _read_file(source: Source, path: Path, records: Sequence[Record]) -> Rows:
    """The sound rows of one file by set and split; every other row is a problem."""
    named = all(splits_named(record) for record in records)
    rows: list[tuple[str, tuple[Record, str, str, str]]] = []
    seen: dict[tuple[str, str], Record] = {}
    labels: dict[tuple[str, ...], tuple[str, str]] = {}
    labelled = any(record.name_of(*LABEL) for record in records)
    for record in records:
        with source.noting():
            image, question = record.picture() or record.key(*IMAGE), question_text(record)
            if not question.strip():
                raise record.fail('missing "text", the question')
            label = record.one_of(("yes", "no"), *LABEL) if labelled else ""
            number = record.key(*QUESTION_ID) if record.name_of(*QUESTION_ID) else record.where
            for split in (splits_named(record) or ()) if named else [split_name(str(path))]:
                first = seen.setdefault((split, number), record)
                if first is not record:
                    raise record.fail(f"{record.name_of(*QUESTION_ID)} {shown(number)} occurs twice, first at {first.where}")
                said, where = labels.setdefault((split, picture_key(image), asked(question)), (label, record.where))
                if said != label:
                    raise record.fail(f"the label contradicts that of the same question at {where}")
                rows.append((split, (record, image, question, label)))
    found: Rows = {}
    name = _set_of(source, path, [row for _, row in rows])
    for split, row in rows:
        found.setdefault((name, split), []).append(row)
    return found


def _set_of(source: Source, path: Path, rows: Sequence[tuple[Record, str, str, str]]) -> str:
    """ "coco", "aokvqa", "gqa" or "other": as file or folder say, else as pictures and objects do. A contradiction is a problem."""
    text = f"{path.parent.name}/{path.name}".lower()
    told = next((name for name in ("aokvqa", "gqa", "coco") if name in text.replace("-", "")), None)
    numbers = sum(picture_key(image).isdigit() and not image.upper().startswith("COCO_") for _, image, _, _ in rows)
    of_genome = bool(rows) and numbers == len(rows)
    if told and rows and (told == "gqa") != of_genome:
        wanted = "GQA's pictures (2405722.jpg)" if told == "gqa" else "COCO's pictures (COCO_val2014_000000310196.jpg)"
        source.problems.append(f"{rows[0][0].where}: {path.name} should ask about {wanted}, got {shown(rows[0][1])}")
    if told:
        return told
    if of_genome or not all(coco_number(image) is not None for _, image, _, _ in rows):
        return "gqa" if of_genome else "other"
    things = {found.group(1) for _, _, question, _ in rows if (found := THING.match(question.lower()))}
    return "coco" if things <= coco_names() else "aokvqa"


def _edition(splits: Mapping[str, Sequence[tuple[Record, str, str, str]]]) -> str:
    columns = {
        split: {"images": [row[1] for row in rows], "questions": [row[2] for row in rows], "labels": [row[3] for row in rows]}
        for split, rows in splits.items()
    }
    return variant(columns)


def _same_questions(source: Source, rows: Rows) -> None:
    """Two splits of one set with the same questions are one file under two names."""
    known: dict[tuple, tuple[str, str]] = {}
    for (name, split), found in rows.items():
        asks = (name, frozenset((picture_key(image), asked(question), label) for _, image, question, label in found))
        first = known.setdefault(asks, (name, split))
        if first != (name, split):
            where = found[0][0].where.split(":")[0]
            source.problems.append(
                f"{where}: {name} {split} asks the same questions as {' '.join(first)}; one of the files is misnamed"
            )
