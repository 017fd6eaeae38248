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
    fits,
    match,
    need_identifiers,
    question_text,
    renumbered,
    self_matched,
    told_apart,
)
from hkd_core.evaluation.pope import SPLITS
from hkd_core.evaluation.records import LABEL, QUESTION, QUESTION_ID, SPLIT, Record, asked, by_key, picture_key, read_records

FULL = {split: split for split in SPLITS}
SHORT = {"random": "ran|rand|rnd", "popular": "pop", "adversarial": "adv|advers"}
Questions = dict[str, dict[str, Record]]  # split -> identifier -> question


def read_pope(
    questions: Sequence[str], answers: Sequence[str], *, by_order: bool = False, field: str | None = None
) -> dict[str, list[Answered]]:
    """split -> its questions with their answers. questions: none if the answers' rows hold them.

    Raises UserError for files that do not belong together.
    """
    if not questions:
        own = {name: read_records(name) for name in unique("--answers", answers)}
        lacking = [record for records in own.values() for record in records if not complete([record], field)]
        if 0 < 2 * len(lacking) < sum(map(len, own.values())):
            raise lacking[0].fail("question, label or reply is missing or empty, which other rows hold")
        if lacking:
            raise UserError(f"{answers[0]}: give the questions with --questions (its rows do not hold question, label and reply)")
        return {split: self_matched(records, field=field) for split, records in own_splits(own).items()}
    unique("--answers", answers)
    files = {name: read_records(name) for name in unique("--questions", questions)}
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


def unique(option: str, paths: Sequence[str]) -> Sequence[str]:
    """The paths. Raises UserError for one that is given twice."""
    twice = next((name for name in paths if paths.count(name) > 1), None)
    if twice:
        raise UserError(f"{option}: {twice} is given twice")
    return paths


def over_splits(
    splits: Questions, answers: Sequence[Record], path: str, *, by_order: bool, field: str | None
) -> dict[str, list[Answered]]:
    """One file of answers to several splits: by order, by identifiers that do not repeat, by category, or by LLaVA's numbering."""
    if not by_order:
        splits = fitting_identifier(splits, answers)
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


def fitting_identifier(splits: Questions, answers: Sequence[Record]) -> Questions:
    """The questions under that one of their identifiers which no two share and which the answers name, if there is one."""
    every = list({id(record): record for found in splits.values() for record in found.values()}.values())
    for name in QUESTION_ID:
        found = told_apart(every, name)
        if found and fits(found, answers):
            return {split: {record.key(name): record for record in held.values()} for split, held in splits.items()}
    return splits


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
    found = own_splits({path: records})
    return {split_name(path): found["all"]} if "all" in found else found


def split_name(path: str) -> str:
    """The split that a file's name tells ("pope_adv.jsonl"), or that of a folder around it, else the file's name."""
    stem, *folders = Path(path).stem, *(folder.name for folder in Path(path).parents)
    return split_in(stem) or next(filter(None, (split_in(name, folder=True) for name in folders[:3])), None) or stem


def split_in(name: str, *, folder: bool = False) -> str | None:
    """The one split that a name tells, in full or short. A folder's name must end in it: "random_seed_1" is no split."""
    end = r"$" if folder else r"(?![a-z])"
    for written in (FULL, {} if folder and name.lower() == "ran" else SHORT):  # "pop_random" is random
        found = {split for split, words in written.items() if re.search(rf"(?<![a-z])(?:{words}){end}", name.lower())}
        if found:
            return found.pop() if len(found) == 1 else None
    return None


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
    """Which answers file is each split's: by the split in its name if names tell splits, else by order.

    Raises UserError where only some names tell a split, or where they tell others than the questions'.
    """
    names = [split_name(path) for path in answers]
    told = [name in SPLITS for name in names]
    asked = any(split in SPLITS for split in splits)
    if not asked or not any(told) or (len(set(names)) == 1 and len(names) > 1):
        return list(range(len(splits)))
    if set(names) == set(splits) and len(set(names)) == len(names):
        return [names.index(split) for split in splits]
    which = next((path for path, is_told in zip(answers, told, strict=True) if not is_told), None)
    reason = f"{which} names none or several" if which else f"their names say {', '.join(names)}"
    raise UserError(
        f"--answers: the questions' splits are {', '.join(splits)}, but {reason}; name the split in every file's name, or in none"
    )


def splits_named(record: Record) -> list[str] | None:
    """POPE's splits in a row's category ("random,popular" are two), or None."""
    names = [name.strip().lower() for name in (record.optional(*SPLIT) or "").split(",")]
    return list(dict.fromkeys(names)) if all(name in SPLITS for name in names) else None


def own_splits(files: Mapping[str, Sequence[Record]]) -> dict[str, list[Record]]:
    """Rows that hold their question, by their category, else by the split in the names of their files, else all together."""
    found: dict[str, list[Record]] = defaultdict(list)
    rows = [record for records in files.values() for record in records]
    if all(splits_named(record) for record in rows):
        for record in rows:
            for name in splits_named(record) or ():
                found[name].append(record)
        return dict(found)
    names = [split_name(path) for path in files]
    if len(files) > 1 and len(set(names)) == len(names) and set(names) <= set(SPLITS):
        return {name: list(records) for name, records in zip(names, files.values(), strict=True)}
    return {"all": rows}
