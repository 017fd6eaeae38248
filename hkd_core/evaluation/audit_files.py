"""The audit's files: labelled yes-no questions and the answers of both sides, paired as in the other commands (`pope_files.matched`)."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import nan

from hkd_core.common.errors import UserError
from hkd_core.evaluation import amber
from hkd_core.evaluation.audit import UNREAD
from hkd_core.evaluation.identify import ANY, ASKED, fitting, hint_of, indexed, key_by, key_in, named
from hkd_core.evaluation.matching import Answered
from hkd_core.evaluation.output import warn
from hkd_core.evaluation.pope import SPLITS
from hkd_core.evaluation.pope_files import Files, matched, prepared, split_name, splits_of, unique
from hkd_core.evaluation.pope_scores import strict
from hkd_core.evaluation.records import LABEL, MAYBE_REPLY, PICTURE_ENDING, REPLY, SPLIT, Record, read_records
from hkd_core.evaluation.rows import shown

LABELS = {"yes": 1, "no": 0, "1": 1, "0": 0, "1.0": 1, "0.0": 0}
NAME = re.compile(r"\b(?:is|are) there (?:an? |any |some )?(.+?) in (?:the|this) \w+", re.IGNORECASE)
LARGEST = 1e6  # beyond it a margin is no difference of two log-probabilities
MARGIN = "log p(Yes) - log p(No), above 0 for Yes"
GENERATIVE = "generative"  # AMBER's type of what is no question
Read = tuple[int, float]  # 1 yes, 0 no or UNREAD; the margin, 0 where none are read


@dataclass(frozen=True)
class Item:
    """One labelled question. label: 1 yes, 0 no; splits: those that it belongs to; name: what it is about."""

    record: Record
    image: str
    label: int
    splits: tuple[str, ...]
    name: str


def read_sides(
    questions: Sequence[str],
    labels: str | None,
    sides: Mapping[str, Sequence[str]],
    *,
    margins: bool = False,
    reply: str | None = None,
    by_order: bool = False,
) -> tuple[list[Item], dict[str, list[Read]]]:
    """The questions, and each side's answers in their order. Raises UserError naming file, line and what was expected."""
    files, passed = read_questions(unique("--questions", questions), labels)
    held = {side: {path: read_records(path) for path in unique(f"--{side}", paths)} for side, paths in sides.items()}
    check_splits(questions, *sides.values())
    files, left = answered_part(files, held)
    if passed | left:
        held = {side: {path: asked_for(rows, passed | left) for path, rows in kept.items()} for side, kept in held.items()}
    items = items_of(files)
    found: dict[str, list[Read]] = {}
    for side, answers in held.items():
        given = {path: [replied(record, reply) for record in rows] if margins else rows for path, rows in answers.items()}
        splits = matched(files, given, by_order=by_order, field=reply, option=f"--{side}")
        pairs = {id(pair.question): pair for several in splits.values() for pair in several}
        found[side] = [read(pairs[id(item.record)], margins=margins) for item in items]
        if margins:
            check_margins(next(iter(answers)), found[side])
    return items, found


def read_questions(paths: Sequence[str], labels: str | None) -> tuple[Files, set[str]]:
    """The files of labelled questions, and the identifiers of what is none: AMBER's generative part, labels of what is not asked here."""
    found, passed = {}, set()
    for path in paths:
        records = read_records(path)
        truths, others = known_labels(records, labels) if labels else (records, [])
        rows = []
        for record, truth in zip(records, truths, strict=True):
            if GENERATIVE in (record.fields.get("type"), truth.fields.get("type")):
                others.append(record)
            else:
                held = {name: value for name, value in record.fields.items() if value is not None}
                rows.append(Record({**truth.fields, **held}, record.where) if labels else record)
        if not rows:
            raise UserError(f"{path}: no yes-no questions in it")
        found[path] = rows
        passed |= {key for record in others if (key := key_by(record, ANY))}
    return prepared(found), passed - {key_by(record, ANY) for rows in found.values() for record in rows}


def known_labels(records: list[Record], path: str) -> tuple[list[Record], list[Record]]:
    """Each question's row in the file of labels, and the rows of that file which no question has."""
    held = read_records(path)
    ours, theirs = fitting(records, held)
    known = indexed(held, theirs)
    keys = [key_in(record, ours) for record in records]
    for record, key in zip(records, keys, strict=True):
        if key not in known:
            raise record.fail(f"{named(record, ours)} {shown(key)} has no label in {path}{hint_of(known, dict.fromkeys(keys))}")
    return [known[key] for key in keys], [record for key, record in known.items() if key not in set(keys)]


def asked_for(records: Sequence[Record], passed: set[str]) -> list[Record]:
    """The answers that are to none of these. Raises UserError if none are left."""
    kept = [record for record in records if key_by(record, ANY) not in passed]
    if not kept:
        raise records[0].fail("no answer in this file is to one of the questions")
    return kept


def items_of(files: Files) -> list[Item]:
    """The questions in the order of the files. Raises UserError for one without label."""
    listed = splits_of(files)
    names: dict[int, list[str]] = {}
    for split, records in listed.items():
        for record in records if len(listed) > 1 else ():
            names.setdefault(id(record), []).append(split)
    found = []
    for path, rows in files.items():
        label = next((name for name in LABEL if any(record.fields.get(name) is not None for record in rows)), None)
        for record in rows:
            splits = tuple(names.get(id(record), ())) or (record.optional(*SPLIT) or "all",)
            image = picture_of(record) or f"{path} {len(found)}"
            found.append(Item(record, image, read_label(record, label), splits, about(record)))
        unnamed = sum(picture_of(record) is None for record in rows)
        if unnamed:
            warn(f"{path}: {unnamed} of {len(rows)} rows name no picture: the intervals count each row as a separate picture")
    return found


def read_label(record: Record, name: str | None) -> int:
    """1 for yes, 0 for no. name: the field that holds the labels of this file, None if it has none."""
    given = record.fields.get(name) if name else record.get(*LABEL)
    if given in (None, ""):
        raise record.fail(f'"{name}" is empty or NaN: the label must be "yes" or "no"')
    label = LABELS.get(str(given).strip().lower().rstrip("."))
    if label is None:
        raise record.fail(f'"{name}": the label must be "yes" or "no", got {shown(given)}')
    return label


def picture_of(record: Record) -> str | None:
    """The picture's name; lmms-eval's MME has it in question_id ("existence/0006.png")."""
    key = record.optional("question_id")
    return record.picture() or (key if key and PICTURE_ENDING.search(key) else None)


def about(record: Record) -> str:
    """What a question is about: the thing that it asks for, else its text."""
    text = record.optional(*ASKED) or record.where
    found = NAME.search(text)
    return record.optional("object") or (found.group(1) if found else text).lower()


def check_splits(questions: Sequence[str], *sides: Sequence[str]) -> None:
    """Raises UserError where the order of files counts, and those read together are named after different splits of POPE."""
    if len({len(questions), *map(len, sides)}) > 1 or any(split_name(path) in SPLITS for path in questions):
        return
    for files in zip(*sides, strict=True):
        told = {split: path for path in files if (split := split_name(path)) in SPLITS}
        if len(questions) > 1 and len(told) > 1:
            (one, first), (other, second), *_ = told.items()
            raise UserError(
                f"{second}: its name says {other}, but it would be read with {first}, whose name says {one}: "
                "give the files of every option in the same order of splits"
            )


def answered_part(files: Files, held: Mapping[str, Files]) -> tuple[Files, set[str]]:
    """The questions to audit, and the identifiers of the others: all, but of AMBER's the dimensions that both sides answer, with a warning."""
    records = [record for listed in files.values() for record in listed]
    types = [amber.TYPES.get(record.optional("type", "category") or "", "") for record in records]
    if "" in types:
        return files, set()
    places = {key_by(record, ANY): place for place, record in enumerate(records)}
    both = list(amber.DIMENSIONS)
    for side in held.values():
        keys = [key_by(record, ANY) for rows in side.values() for record in rows]
        answered = amber.answered_dimensions(types, [places[key] for key in keys if key in places])
        both = [name for name in both if name in answered]
    left = [name for name in amber.DIMENSIONS if name not in both and any(kind in amber.DIMENSIONS[name] for kind in types)]
    if not both or not left:
        return files, set()
    warn(f"{next(iter(files))}: not both sides answer {' and '.join(left)}; the audit is of {' and '.join(both)} alone")
    kinds = {kind for name in both for kind in amber.DIMENSIONS[name]}
    asked = {id(record) for record, kind in zip(records, types, strict=True) if kind in kinds}
    kept = {path: [record for record in listed if id(record) in asked] for path, listed in files.items()}
    passed = {key for key, place in places.items() if key and types[place] not in kinds}
    return {path: listed for path, listed in kept.items() if listed}, passed


def replied(record: Record, field: str | None) -> Record:
    """The answer; one without text says what its margin's sign does."""
    if record.name_of(*((field,) if field else (*REPLY, *MAYBE_REPLY))) is not None:
        return record
    return Record({**record.fields, field or REPLY[0]: "Yes" if read_margin(record) > 0 else "No"}, record.where)


def read(pair: Answered, *, margins: bool) -> Read:
    code = {"yes": 1, "no": 0}.get(strict(pair.reply) or "", UNREAD)
    return code, read_margin(pair.answer) if margins else 0.0


def read_margin(record: Record) -> float:
    """Raises UserError for what no difference of two log-probabilities can be."""
    if "margin" in record.fields and record.fields["margin"] in (None, ""):
        raise record.fail(f'"margin" is empty or NaN: expected a finite number, {MARGIN}')
    given, margin = record.get("margin"), nan
    if isinstance(given, int | float | str) and not isinstance(given, bool):
        with suppress(ValueError, OverflowError):
            margin = float(given)
    if not abs(margin) <= LARGEST:
        raise record.fail(f'"margin": expected a finite number from -{LARGEST:g} to {LARGEST:g}, {MARGIN}, got {shown(given)}')
    return margin


def check_margins(path: str, answers: Sequence[Read]) -> None:
    """Raises UserError where most replies contradict the sign of their margin; warns where many do."""
    told = [(code, value) for code, value in answers if code != UNREAD and value != 0]
    against = sum((value > 0) != (code == 1) for code, value in told)
    if 2 * against > len(told):
        message = f'{against} of {len(told)} replies contradict the sign of their "margin"'
        raise UserError(f"{path}: {message}: expected {MARGIN}; are they negated, or another model's?")
    if 10 * against > len(told):
        warn(f'{path}: {against} of {len(told)} replies contradict the sign of their "margin"; expected {MARGIN}')
    values = [value for _, value in answers]
    if len(values) > 10 and min(values) >= 0 and max(values) <= 1:
        warn(f'{path}: every "margin" lies between 0 and 1; expected {MARGIN}, not the probability of Yes')
