"""The audit's files: labelled yes-no questions and the answers of both sides, whatever names or numbers their rows."""

import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from math import nan
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.evaluation import amber
from hkd_core.evaluation.audit import UNREAD
from hkd_core.evaluation.hallusion import KEYS
from hkd_core.evaluation.matching import match
from hkd_core.evaluation.output import warn
from hkd_core.evaluation.pope import SPLITS
from hkd_core.evaluation.pope_files import paired, split_name
from hkd_core.evaluation.pope_scores import strict
from hkd_core.evaluation.records import (
    IMAGE,
    LABEL,
    MAYBE_REPLY,
    PICTURE_ENDING,
    QUESTION,
    QUESTION_ID,
    REPLY,
    Record,
    asked,
    by_key,
    picture_key,
    read_records,
)
from hkd_core.evaluation.rows import shown

SPLIT = ("category", "type", "split", "pope_type", "subtask")
ASKED = ("text", *QUESTION)
LABELS = {"yes": 1, "no": 0, "1": 1, "0": 0, "1.0": 1, "0.0": 0}
NAME = re.compile(r"\b(?:is|are) there (?:an? |any |some )?(.+?) in (?:the|this) \w+", re.IGNORECASE)
LARGEST = 1e6  # beyond it a margin is no difference of two log-probabilities
MARGIN = "log p(Yes) - log p(No), above 0 for Yes"
Way = tuple[tuple[str, ...], ...]  # what tells rows apart: one or more fields, each under the first of its names that is there
ANY: Way = (QUESTION_ID,)
SINGLE: tuple[Way, ...] = (ANY, *(((name,),) for name in QUESTION_ID))
TOGETHER: tuple[Way, ...] = (
    *((SPLIT, (name,)) for name in QUESTION_ID),
    tuple((name,) for name in KEYS),
    *(((name,), ASKED) for name in QUESTION_ID),
    (IMAGE, ASKED),
)


@dataclass(frozen=True)
class Item:
    """One labelled question. label: 1 yes, 0 no; splits: those that it belongs to; name: what it is about; where: for messages."""

    key: str
    image: str
    label: int
    splits: tuple[str, ...]
    name: str
    where: str
    record: Record = field(default_factory=lambda: Record({}, ""))


def key_by(record: Record, way: Way) -> str | None:
    """What a row is called in this way, or None if it lacks a part of it."""
    parts = []
    for names in way:
        if names == ASKED:  # "text" is a question's text, and an answer's reply
            text = record.optional(*QUESTION) or record.optional("text")
            part = asked(text) if text else None
        elif names == IMAGE:
            picture = record.picture()
            part = picture_key(picture) if picture else None
        else:
            part = None
            with suppress(UserError):
                part = record.key(*names)
        if part is None:
            return None
        parts.append(part.lower() if names == SPLIT else part)
    return " ".join(parts)


def key_in(record: Record, way: Way) -> str:
    """`key_by`. Raises UserError that says what is missing or wrong."""
    key = key_by(record, way)
    if key is None:
        for names in way:
            record.key(*names)
        raise record.fail(f"expected a value in {named(record, way)}")
    return key


def named(record: Record, way: Way) -> str:
    """The names of the fields by which a row is known."""
    return " and ".join(record.name_of(*names) or names[0] for names in way)


def ways_of(records: Sequence[Record]) -> list[Way]:
    """The ways in which every row has a name and no two the same. Raises UserError naming two rows if there is none."""
    found = []
    for way in (*SINGLE, *TOGETHER):
        keys = {key_by(record, way) for record in records}
        if None not in keys and len(keys) == len(records):
            found.append(way)
    if not found:
        by_key(records, *QUESTION_ID)
    return found or [ANY]


def fitting(questions: Sequence[Record], others: Sequence[Record]) -> tuple[Way, Way]:
    """How to name questions, and rows of another file, so that most of these are questions.

    A tie is won by the same way for both, then by one in which no two of the other rows are alike.
    """
    named_by = {way: [key_by(record, way) for record in others] for way in (*SINGLE, *TOGETHER)}
    alone = {way: len(set(keys)) == len(keys) for way, keys in named_by.items()}
    best, most = (ANY, ANY), (-1, False, False)
    for ours in ways_of(questions):
        known = {key_by(record, ours) for record in questions}
        for theirs in SINGLE if ours in SINGLE else (ours,):
            fit = (sum(key in known for key in named_by[theirs]), ours == theirs, alone[theirs])
            if fit > most:
                best, most = (ours, theirs), fit
    return best


def read_items(path: str, labels: str | None, split: str) -> tuple[list[Item], list[Record]]:
    """The questions of one file; and the rows that are none: AMBER's generative part, labels of what is not asked here.

    split: of every question, or "" where the rows say it. Raises UserError for a question without label.
    """
    records = read_records(path)
    way = ways_of(records)[0]
    truths, others = known_labels(records, labels) if labels else (records, [])
    label = next((name for name in LABEL if any(truth.fields.get(name) is not None for truth in truths)), None)
    items, unnamed = [], 0
    for record, truth in zip(records, truths, strict=True):
        if "generative" in (record.fields.get("type"), truth.fields.get("type")):
            others.append(record)
            continue
        held = {name: value for name, value in record.fields.items() if value is not None}
        row = Record({**truth.fields, **held}, record.where)
        key, picture = key_in(record, way), picture_of(row)
        unnamed += picture is None
        items.append(
            Item(
                key=key,
                image=picture or f"{path} {key}",
                label=read_label(truth, label),
                splits=(split,) if split else splits_in(row),
                name=about(row, key),
                where=record.where,
                record=row,
            )
        )
    if not items:
        raise UserError(f"{path}: no yes-no questions in it")
    if unnamed:
        warn(f"{path}: {unnamed} of {len(items)} rows name no picture: the intervals count each row as a separate picture")
    return items, others


def known_labels(records: Sequence[Record], path: str) -> tuple[list[Record], list[Record]]:
    """Each question's row in the file of labels, and the rows of that file which no question has."""
    held = read_records(path)
    ours, theirs = fitting(records, held)
    known = indexed(held, theirs)
    keys = [key_in(record, ours) for record in records]
    for record, key in zip(records, keys, strict=True):
        if key not in known:
            raise record.fail(f"{named(record, ours)} {shown(key)} has no label in {path}{advice(keys, known)}")
    return [known[key] for key in keys], [record for key, record in known.items() if key not in set(keys)]


def indexed(records: Sequence[Record], way: Way) -> dict[str, Record]:
    """Rows by name. Raises UserError naming both places of one that occurs twice."""
    found: dict[str, Record] = {}
    for record in records:
        first = found.setdefault(key_in(record, way), record)
        if first is not record:
            raise record.fail(f"{named(record, way)} {shown(key_in(record, way))} occurs twice, first at {first.where}")
    return found


def advice(keys: Sequence[str], known: Mapping[str, object]) -> str:
    """What may be wrong with identifiers that are not known, for the end of a message."""
    if not all(key.isascii() and key.isdigit() and len(key) < 18 for key in [*keys, *known]):
        return ""
    ours, theirs = {int(key) for key in known}, [int(key) for key in keys]
    if all(number in ours for number in theirs):
        return "; one of the files writes its identifiers with zeros in front: write them alike"
    for step, word in ((1, "lower"), (-1, "higher")):
        if all(number + step in ours for number in theirs):
            return f"; all identifiers are one {word} than those of the questions: does one of the files count from 0?"
    return ""


def read_label(record: Record, name: str | None) -> int:
    """1 for yes, 0 for no. name: the field that holds the labels of this file, None if it has none."""
    given = record.fields.get(name) if name else record.get(*LABEL)
    if given in (None, ""):
        raise record.fail(f'"{name}" is empty or NaN: the label must be "yes" or "no"')
    label = LABELS.get(str(given).strip().lower().rstrip("."))
    if label is None:
        raise record.fail(f'"{name}": the label must be "yes" or "no", got {shown(given)}')
    return label


def splits_in(record: Record) -> tuple[str, ...]:
    """A row's split; of POPE's splits a row may name several ("random,popular")."""
    given = record.optional(*SPLIT) or "all"
    listed = [name.strip().lower() for name in given.split(",")]
    return tuple(dict.fromkeys(listed)) if all(name in SPLITS for name in listed) else (given,)


def picture_of(record: Record) -> str | None:
    """The picture's name; lmms-eval's MME has it in question_id ("existence/0006.png")."""
    key = record.optional("question_id")
    return record.picture() or (key if key and PICTURE_ENDING.search(key) else None)


def about(record: Record, key: str) -> str:
    """What a question is about: the thing that it asks for, else its text."""
    text = record.optional(*ASKED) or key
    found = NAME.search(text)
    return record.optional("object") or (found.group(1) if found else text).lower()


def ordered(splits: Sequence[str], paths: Sequence[str], option: str) -> list[str]:
    """One side's files in the order of the questions' splits: as `pope_files.paired` has it. Raises UserError for too few or one twice."""
    if len(paths) != len(splits):
        given = f"{len(splits)} of --questions and {len(paths)} of --{option}"
        raise UserError(f"--{option}: expected a file for each file of --questions, got {given}")
    if len(set(paths)) < len(paths):
        raise UserError(f"--{option}: {next(path for path in paths if paths.count(path) > 1)} is given twice")
    try:
        return [paths[at] for at in paired(splits, paths)]
    except UserError as error:
        raise UserError(str(error).replace("--answers", f"--{option}")) from error


def check_splits(questions: Sequence[str], *sides: Sequence[str]) -> None:
    """Raises UserError where files that would be read together are named after different splits of POPE."""
    for files in zip(questions, *sides, strict=True):
        told = {split: path for path in files if (split := split_name(path)) in SPLITS}
        if len(told) > 1:
            (one, first), (other, second), *_ = told.items()
            raise UserError(
                f"{second}: its name says {other}, but it would be read with {first}, whose name says {one}: "
                "give the files of every option in the same order of splits"
            )


def file_splits(paths: Sequence[str]) -> list[str]:
    """A name for the split of each file of questions: POPE's where the names tell it, else the first of stem and path that differs."""
    if len(set(paths)) < len(paths):
        raise UserError(f"--questions: {next(path for path in paths if list(paths).count(path) > 1)} is given twice")
    ways = ([split_name(path) for path in paths], [Path(path).stem for path in paths], list(paths))
    return next(names for names in ways if len(set(names)) == len(names))


def joined(path: str, items: Sequence[Item], others: Sequence[Record]) -> dict[int, Record]:
    """Place of a question -> its answer. Answers to `others` are passed over.

    Raises UserError for two answers to one question, and for an answer to no question.
    """
    answers = read_records(path)
    ours, theirs = fitting([item.record for item in items], answers)
    places = {key_in(item.record, ours): place for place, item in enumerate(items)}
    passed = {key_by(record, ours) for record in others}
    held = indexed(answers, theirs)
    for key, answer in held.items():
        if key not in places and key not in passed:
            raise answer.fail(f"{named(answer, theirs)} {shown(key)} is no question{advice(list(held), places)}")
    return {places[key]: answer for key, answer in held.items() if key in places}


def answered_part(path: str, items: Sequence[Item], held: Mapping[str, Mapping[int, Record]]) -> list[int]:
    """Places of the questions to audit: all, but of AMBER's the dimensions that both sides answer, with a warning."""
    kinds = [amber.TYPES.get(item.record.optional("type", "category") or "") for item in items]
    everything = list(range(len(items)))
    if None in kinds:
        return everything
    types = [kind or "" for kind in kinds]
    answered = [amber.answered_dimensions(types, list(answers)) for answers in held.values()]
    both = [name for name in amber.DIMENSIONS if all(name in names for names in answered)]
    kept = [place for place in everything if any(types[place] in amber.DIMENSIONS[name] for name in both)]
    if not kept or len(kept) == len(items):
        return everything
    left = [name for name in amber.DIMENSIONS if name not in both and any(kind in amber.DIMENSIONS[name] for kind in types)]
    warn(f"{path}: not both sides answer {' and '.join(left)}; the audit is of {' and '.join(both)} alone")
    return kept


def read_side(
    path: str, items: Sequence[Item], held: Mapping[int, Record], *, margins: bool, reply: str | None = None
) -> list[tuple[int, float]]:
    """(answer, margin) for each question; the margin is 0 where none are read. An answer without text is the sign of its margin.

    held: place of a question -> its answer. Raises UserError for a question without answer, and for margins that contradict the texts.
    """
    missing = [item for place, item in enumerate(items) if place not in held]
    if missing:
        first, more = missing[0], f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        name = named(first.record, ways_of([item.record for item in items])[0])
        raise UserError(f"{path}: no answer to {name} {shown(first.key)}, asked at {first.where}{more}")
    answers = [held[place] for place in range(len(items))]
    values = [read_margin(answer) if margins else 0.0 for answer in answers]
    names = (reply,) if reply else (*REPLY, *MAYBE_REPLY)
    bare = [margins and answer.name_of(*names) is None for answer in answers]
    texts = [
        Record({**answer.fields, reply or REPLY[0]: "Yes" if value > 0 else "No"}, answer.where) if alone else answer
        for answer, value, alone in zip(answers, values, bare, strict=True)
    ]
    questions = {item.key: item.record for item in items}
    codes = [code_of(strict(pair.reply)) for pair in match(questions, texts, path=path, field=reply, by_order=True)]
    if margins:
        check_margins(path, codes, values)
    return list(zip(codes, values, strict=True))


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


def check_margins(path: str, codes: Sequence[int], values: Sequence[float]) -> None:
    """Raises UserError where most replies contradict the sign of their margin; warns where many do."""
    told = [(code, value) for code, value in zip(codes, values, strict=True) if code != UNREAD and value != 0]
    against = sum((value > 0) != (code == 1) for code, value in told)
    if 2 * against > len(told):
        message = f'{against} of {len(told)} replies contradict the sign of their "margin"'
        raise UserError(f"{path}: {message}: expected {MARGIN}; are they negated, or another model's?")
    if 10 * against > len(told):
        warn(f'{path}: {against} of {len(told)} replies contradict the sign of their "margin"; expected {MARGIN}')
    if len(values) > 10 and min(values) >= 0 and max(values) <= 1:
        warn(f'{path}: every "margin" lies between 0 and 1; expected {MARGIN}, not the probability of Yes')


def code_of(answer: str | None) -> int:
    return {"yes": 1, "no": 0}.get(answer or "", UNREAD)
