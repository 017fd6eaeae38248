"""POPE's files: which questions belong to which split, and which answers to which questions.

Splits come one a file (the official layout), as a column `category` of one file (lmms-lab/POPE, VLMEvalKit, LLaVA's
`llava_pope_test.jsonl`), or as one unnamed file. Answers come one file a split, or one for all.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.evaluation.matching import (
    SPLITS_APART,
    Answered,
    complete,
    match,
    need_identifiers,
    question_text,
    read_all,
    self_matched,
)
from hkd_core.evaluation.pope import SPLITS
from hkd_core.evaluation.records import LABEL, QUESTION, QUESTION_ID, SPLIT, Record, asked, by_key, picture_key, read_records

Questions = dict[str, dict[str, Record]]  # split -> identifier -> question


def read_pope(
    questions: Sequence[str], answers: Sequence[str], *, by_order: bool = False, field: str | None = None
) -> dict[str, list[Answered]]:
    """split -> its questions with their answers. questions: none if the answers' rows hold them.

    Raises UserError for files that do not belong together.
    """
    if not questions:
        records = read_all(answers)
        if not complete(records, field):
            raise UserError(f"{answers[0]}: give the questions with --questions (its rows do not hold question, label and reply)")
        return by_category(self_matched(records, field=field))
    files = {name: read_records(name) for name in dict.fromkeys(questions)}
    if len(files) < len(questions):
        raise UserError(f"--questions: {next(name for name in questions if questions.count(name) > 1)} is given twice")
    splits = splits_of(files)
    held = [read_records(name) for name in answers]
    if len(answers) == len(splits) > 1:
        order = paired(list(splits), answers)
        return {
            split: match(splits[split], held[at], path=answers[at], by_order=by_order, field=field)
            for split, at in zip(splits, order, strict=True)
        }
    everything = [record for records in held for record in records]
    path = answers[0]
    if len(splits) == 1:
        (split, found), *_ = splits.items()
        return {split: match(found, everything, path=path, by_order=by_order, field=field)}
    return over_splits(splits, everything, path, by_order=by_order, field=field)


def over_splits(
    splits: Questions, answers: Sequence[Record], path: str, *, by_order: bool, field: str | None
) -> dict[str, list[Answered]]:
    """One file of answers to several splits: by order, by identifiers that do not repeat, by category, or by LLaVA's numbering."""
    together: dict[str, Record] = {}
    places: dict[str, list[tuple[str, str]]] = defaultdict(list)
    distinct = True
    for split, found in splits.items():
        for key, record in found.items():
            known = together.setdefault(key, record)
            distinct &= known is record
            places[split].append((f"{split} {key}", key))
    if by_order:
        listed = {f"{split} {key}": record for split, found in splits.items() for key, record in found.items()}
        matched = {pair.key: pair for pair in match(listed, answers, path=path, by_order=True, field=field)}
        return {split: [matched[name] for name, _ in names] for split, names in places.items()}
    if distinct:
        matched = {pair.key: pair for pair in match(together, answers, path=path, field=field)}
        return {split: [matched[key] for _, key in names] for split, names in places.items()}
    need_identifiers(answers)
    groups = answer_groups(splits, answers)
    if groups is None:
        raise UserError(
            f"{path}: identifiers repeat across the splits, so its answers cannot be told apart; "
            "give llava_pope_test.jsonl with the --questions, or one answers file for each split in the same order, or --by-order"
        )
    return {split: match(splits[split], groups[split], path=path, field=field) for split in splits}


def answer_groups(splits: Questions, answers: Sequence[Record]) -> dict[str, list[Record]] | None:
    """Answers by split: by their own category, or by LLaVA's numbering with the split found from the prompts."""
    named = defaultdict(list)
    for record in answers:
        named[(record.optional(*SPLIT) or "").lower()].append(record)
    if set(named) == {split.lower() for split in splits}:
        return {split: named[split.lower()] for split in splits}
    numbered = defaultdict(list)
    for record in answers:
        key = record.key(*QUESTION_ID)
        if not (key.isascii() and key.isdigit() and len(key) < 18):
            return None
        numbered[int(key) // SPLITS_APART].append(renumbered(record, int(key) % SPLITS_APART))
    if len(numbered) != len(splits):
        return None
    fitting = {
        split: {group: fit for group, records in numbered.items() if (fit := fitted(found, records))}
        for split, found in splits.items()
    }
    chosen: dict[str, int] = {}
    while len(chosen) < len(splits):
        free = {s: [g for g in groups if g not in chosen.values()] for s, groups in fitting.items() if s not in chosen}
        sure = next((split for split, groups in free.items() if len(groups) == 1), None)
        if sure is None:
            return None
        chosen[sure] = free[sure][0]
    return {split: fitting[split][group] for split, group in chosen.items()}


def renumbered(record: Record, number: int | str) -> Record:
    name = record.name_of(*QUESTION_ID)
    return Record({**record.fields, name: number}, record.where)


def fitted(questions: Mapping[str, Record], answers: Sequence[Record]) -> list[Record] | None:
    """The answers with the questions' identifiers, if they answer these: by number, or by order where prompts confirm it."""
    in_order = [renumbered(answer, key) for key, answer in zip(questions, answers, strict=False)]
    confirmed = len(in_order) == len(questions) == len(answers) and all(record.name_of(*QUESTION) for record in answers)
    for records in (answers, in_order) if confirmed else (answers,):
        try:
            match(questions, records, path="")
        except UserError:
            continue
        return list(records)
    return None


def splits_of(files: Mapping[str, Sequence[Record]]) -> Questions:
    """The splits of the question files, named by category, file name, or number.

    A file without labels (`llava_pope_test.jsonl`) takes them from the other files, by picture and question.
    """
    bare = {name: records for name, records in files.items() if not any(r.name_of(*LABEL) for r in records)}
    labelled = {name: records for name, records in files.items() if name not in bare}
    if bare:
        if not labelled:
            raise UserError(
                f'{next(iter(bare))}: no "label" in it; give the label files of its splits beside it as further --questions'
            )
        labels = known_labels(labelled)
        labelled = {name: [with_label(record, labels) for record in records] for name, records in bare.items()}
    found: Questions = {}
    for path, records in labelled.items():
        for split, listed in by_split(records, path).items():
            name = split if split not in found else f"{split} ({path})"
            found[name] = by_key(listed, *QUESTION_ID)
    return found


def by_split(records: Sequence[Record], path: str) -> dict[str, list[Record]]:
    """By category, where each is one of POPE's splits or a list of them ("random,popular"); else one split, named by its file."""
    found: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        names = [name.strip().lower() for name in (record.optional(*SPLIT) or "").split(",")]
        if not all(name in SPLITS for name in names):
            return {split_name(path): list(records)}
        for name in dict.fromkeys(names):
            found[name].append(record)
    return dict(found)


def split_name(path: str) -> str:
    """The split that a file's name tells, else the name."""
    stem = Path(path).stem
    named = [split for split in SPLITS if re.search(rf"(?<![a-z]){split}(?![a-z])", stem.lower().replace("_", " "))]
    return named[0] if len(named) == 1 else stem


def known_labels(files: Mapping[str, Sequence[Record]]) -> dict[tuple[str, str], str]:
    found: dict[tuple[str, str], str] = {}
    for records in files.values():
        for record in records:
            place, label = (picture_key(record.key("image", "image_id")), asked(question_text(record))), record.text(*LABEL)
            if found.setdefault(place, label) != label:
                raise record.fail("the label contradicts that of the same question in another file")
    return found


def with_label(record: Record, labels: Mapping[tuple[str, str], str]) -> Record:
    place = (picture_key(record.key("image", "image_id")), asked(question_text(record)))
    if place not in labels:
        raise record.fail("none of the label files asks this question about this picture")
    return Record({**record.fields, "label": labels[place]}, record.where)


def paired(splits: Sequence[str], answers: Sequence[str]) -> list[int]:
    """Which answers file is each split's: by the split in its name if all names tell one, else by order."""
    names = [split_name(path) for path in answers]
    if set(names) == set(splits) and len(set(names)) == len(names):
        return [names.index(split) for split in splits]
    return list(range(len(splits)))


def by_category(pairs: Sequence[Answered]) -> dict[str, list[Answered]]:
    """Rows that hold their question, by split if each names one."""
    found: dict[str, list[Answered]] = defaultdict(list)
    for pair in pairs:
        names = [name.strip().lower() for name in (pair.question.optional(*SPLIT) or "").split(",")]
        if not all(name in SPLITS for name in names):
            return {"all": list(pairs)}
        for name in dict.fromkeys(names):
            found[name].append(pair)
    return dict(found)
