"""POPE's files: which questions belong to which split, and which answers to which questions.

Splits come one a file (the official layout), as a column `category` of one file (lmms-lab/POPE, VLMEvalKit, LLaVA's
`llava_pope_test.jsonl`), or as one unnamed file. Answers come one file a split, or one for all.
"""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import permutations
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.evaluation.identify import BY_PICTURE, SINGLE, fits, fitting, key_by, ways_of
from hkd_core.evaluation.matching import (
    Answered,
    check_pairs,
    complete,
    match,
    need_identifiers,
    question_text,
    replies_of,
    self_matched,
)
from hkd_core.evaluation.pope import SPLITS
from hkd_core.evaluation.records import LABEL, MAYBE_REPLY, QUESTION_ID, REPLY, SPLIT, Record, asked, picture_key, read_records

FULL = {split: split for split in SPLITS}
SHORT = {"random": "ran|rand|rnd", "popular": "pop", "adversarial": "adv|advers"}
Files = Mapping[str, Sequence[Record]]  # path -> its rows


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
    files = prepared({name: read_records(name) for name in unique("--questions", questions)})
    held = {name: read_records(name) for name in unique("--answers", answers)}
    return matched(files, held, by_order=by_order, field=field)


def matched(
    files: Files, held: Files, *, by_order: bool = False, field: str | None = None, option: str = "--answers"
) -> dict[str, list[Answered]]:
    """split -> its questions with their answers. files: questions (`prepared`); held: the files of answers, named by `option`."""
    splits, paths = splits_of(files), list(held)
    if len(held) == len(splits) > 1:
        order = paired(list(splits), paths, option)
        return {
            split: match(records, held[paths[at]], path=paths[at], by_order=by_order, field=field)
            for (split, records), at in zip(splits.items(), order, strict=True)
        }
    told = split_in(Path(paths[0]).stem)
    if len(splits) == len(held) == 1 and told and set(splits) < {*SPLITS} and told not in splits:
        raise UserError(f"{option}: {paths[0]}: its name says {told}, but the questions are {' '.join(splits)}")
    questions = [record for records in files.values() for record in records]
    answers = [record for records in held.values() for record in records]
    if not by_order and len(splits) > 1 and not fits(questions, answers):
        found = over_splits(splits, answers, field)
        if not found:
            refuse_repeated(questions, answers, paths[0])
        questions, answers, by_order = *(found or (questions, answers)), bool(found)
    pairs = match(questions, answers, path=paths[0], by_order=by_order, field=field)
    answered = {id(question): pair for question, pair in zip(questions, pairs, strict=True)}
    return {split: [answered[id(record)] for record in records] for split, records in splits.items()}


def unique(option: str, paths: Sequence[str]) -> Sequence[str]:
    """The paths. Raises UserError for one that is given twice."""
    twice = next((name for name in paths if paths.count(name) > 1), None)
    if twice:
        raise UserError(f"{option}: {twice} is given twice")
    return paths


Ordered = tuple[list[Record], list[Record]]  # questions, and the answer of each


def over_splits(splits: Mapping[str, Sequence[Record]], answers: Sequence[Record], field: str | None) -> Ordered | None:
    """Answers to several splits whose identifiers begin anew in each, as LLaVA and lmms-eval write them.

    Either they follow one order of the splits, and prompts and pictures deny every other order; or picture and prompt name the question.
    """
    questions = [record for records in splits.values() for record in records]
    rows, found = numbered(answers), []
    if len(rows) == len(questions) and len(splits) <= len(SPLITS):
        replies = replies_of(rows, {asked(question_text(record)) for record in questions} - {""}, field=field)
        for order in permutations(splits):
            listed = [record for split in order for record in splits[split]]
            pairs = [Answered("", *each) for each in zip(listed, rows, (text for _, text in replies), strict=True)]
            with suppress(UserError):
                check_pairs(pairs)
                found.append((listed, rows))
    return found[0] if len(found) == 1 else by_picture(questions, answers, field)


def numbered(answers: Sequence[Record]) -> list[Record]:
    """The answers in the order of the first identifier that is another number in each row, else as they are."""
    for name in ("doc_id", *QUESTION_ID):
        numbers = [
            int(key) for record in answers if (key := key_by(record, ((name,),))) and re.fullmatch(r"\d{1,17}", key, re.ASCII)
        ]
        if len(set(numbers)) == len(answers):
            return [record for _, record in sorted(zip(numbers, answers, strict=True), key=lambda pair: pair[0])]
    return list(answers)


def by_picture(questions: Sequence[Record], answers: Sequence[Record], field: str | None) -> Ordered | None:
    """Each question with the answer that names its picture and text; a question of several splits has one reply, or equal ones."""
    ours, theirs = ([key_by(record, BY_PICTURE) for record in side] for side in (questions, answers))
    if None in theirs or set(ours) != set(theirs):
        return None
    known: dict[str | None, Record] = {}
    for key, record in zip(theirs, answers, strict=True):
        first = known.setdefault(key, record)
        if any(first.fields.get(name) != record.fields.get(name) for name in ((field,) if field else (*REPLY, *MAYBE_REPLY))):
            return None
    return list(questions), [known[key] for key in ours]


def refuse_repeated(questions: Sequence[Record], answers: Sequence[Record], path: str) -> None:
    """Raises UserError for answers to several splits whose identifiers do not tell the splits."""
    need_identifiers(answers)
    if next(ways_of(questions), None) and fitting(questions, answers)[1] in SINGLE:
        return  # `match` names the answer that is wrong
    raise UserError(
        f"{path}: identifiers repeat across the splits, so its answers cannot be told apart; "
        "give llava_pope_test.jsonl with the --questions, or one answers file for each split in the same order, or --by-order"
    )


def prepared(files: Files) -> dict[str, list[Record]]:
    """The files of questions, each row with its label and, if the file's name tells one, its split.

    Files without labels (`llava_pope_test.jsonl`) take them from the others, by picture and question; these are left out.
    """
    bare = [name for name, records in files.items() if not any(record.name_of(*LABEL) for record in records)]
    if bare and len(bare) == len(files):
        raise UserError(f'{bare[0]}: no "label" in it; give the label files of its splits beside it as further --questions')
    labels = known_labels({name: records for name, records in files.items() if name not in bare}) if bare else {}
    return {
        path: [in_split(with_label(record, labels) if bare else record, split_name(path)) for record in files[path]]
        for path in bare or files
    }


def in_split(record: Record, split: str) -> Record:
    """The row with its split, if that is one of POPE's and the row names none."""
    return Record({**record.fields, "category": split}, record.where) if split in SPLITS and not record.optional(*SPLIT) else record


def splits_of(files: Files) -> dict[str, list[Record]]:
    """Questions by split, named by category, file name, or number."""
    found: dict[str, list[Record]] = {}
    for path, records in files.items():
        for split, listed in by_split(records, path).items():
            found[split if split not in found else f"{split} ({path})"] = listed
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


def paired(splits: Sequence[str], answers: Sequence[str], option: str) -> list[int]:
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
        f"{option}: the questions' splits are {', '.join(splits)}, but {reason}; name the split in every file's name, or in none"
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
