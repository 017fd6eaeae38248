"""The evaluation's commands: files in, (result, one row an item) out. `__main__` reads their arguments and prints."""

import argparse
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.evaluation import amber, chair, chair_readings, challenge, coco, hallusion, mme, paired, pope, pope_files, pope_scores
from hkd_core.evaluation.identify import indexed
from hkd_core.evaluation.matching import Answered, match, self_matched
from hkd_core.evaluation.output import warn, write
from hkd_core.evaluation.records import (
    IMAGE,
    LABEL,
    PICTURE_ENDING,
    QUESTION,
    QUESTION_ID,
    Record,
    normal,
    picture_key,
    quoted,
    read_records,
    reply_of,
)
from hkd_core.evaluation.replies import yes_no
from hkd_core.evaluation.rows import shown

Found = tuple[dict, list[dict]]  # what is printed, one row an item
PICTURE = (*IMAGE, "id", "question_id")  # what names a caption's picture
DIGITS = {"1": "yes", "0": "no"}
ABOUT = ("claim", "system1_answer", "system1_question")  # what tells the challenge's items about one picture apart
COMPARED = ("label", "correct_choice", *(name for name in LABEL if name not in ("label", "answer")), "answer")
HALLUSION_LABEL = ("gt_answer", "label", "answer", "ground_truth", "target")
CHAIR_SHOWN = ("image_id", "generated", "hallucinated")


def pope_command(args: argparse.Namespace) -> Found:
    splits = pope_files.read_pope(args.questions or (), args.answers, by_order=args.by_order, field=args.reply)
    columns = {name: pope_columns(pairs) for name, pairs in splits.items()}
    found = pope_scores.evaluate_splits(columns, seed=args.seed)
    for warning in found["provenance"]["warnings"]:
        warn(f"{(args.questions or args.answers)[0]}: {warning}")
    warn_unread(args.answers[0], found["parsers"]["strict"]["unparsed"], found["n"])
    if not all(pair.question.picture() for pairs in splits.values() for pair in pairs):
        warn(f"{args.answers[0]}: rows without a picture's name: the interval takes each question for its own picture")
    items = []
    for name, pairs in splits.items():
        rows = columns[name]
        for pair, label, row in zip(pairs, rows["labels"], pope_scores.verdicts(rows["texts"], rows["labels"]), strict=True):
            items.append(
                {"split": name, "id": pair.key, "image": pair.question.picture(), "label": label, "answer": pair.reply} | row
            )
    return found, items


def warn_unread(path: str, unread: int, n: int) -> None:
    if unread:
        warn(f"{path}: {unread} of {n} replies could not be read as yes or no and count as wrong")


def pope_columns(pairs: Sequence[Answered]) -> dict[str, list[str]]:
    rows: dict[str, list[str]] = {"texts": [], "labels": [], "images": [], "questions": []}
    for pair in pairs:
        rows["texts"].append(pair.reply)
        rows["labels"].append(pair.question.one_of(("yes", "no"), *LABEL))
        whole = pair.answer is pair.question  # a row of VLMEvalKit's may name no picture
        rows["images"].append(pair.question.picture() or (pair.key if whole else pair.question.key(*IMAGE[:2])))
        rows["questions"].append(pair.question.text(*QUESTION, "text") if whole else pair.question.text("text", *QUESTION))
    return rows


def pope_build_command(args: argparse.Namespace) -> None:
    pictures, records = [], {}
    for record in read_records(args.objects):
        image, key = record.key(*IMAGE), picture_key(record.key(*IMAGE))
        if key in records:
            raise record.fail(f"{record.name_of(*IMAGE)} {shown(image)} occurs twice, first at {records[key].where}")
        records[key] = record
        objects = record.get("objects")
        if not isinstance(objects, list) or not all(isinstance(name, str) and any(map(str.isalpha, name)) for name in objects):
            raise record.fail(f'"objects": expected a list of names, each with a letter, got {shown(objects)}')
        pictures.append({"image": image, "objects": objects, "where": record.where})
    questions = pope.build_questions(pictures, args.split, seed=args.seed)
    if not questions:
        raise UserError(f"{args.objects}: no picture shows at least {pope.POSITIVES} different objects, as POPE's questions need")
    few = sum(len(set(picture["objects"])) < pope.POSITIVES for picture in pictures)
    if few:
        warn(f"{args.objects}: {few} of {len(pictures)} pictures show fewer than {pope.POSITIVES} objects and are left out")
    lines = ({key: question[key] for key in ("question_id", "image", "text", "label")} for question in questions)
    write("\n".join(json.dumps(line, ensure_ascii=False) for line in lines))


def chair_command(args: argparse.Namespace) -> Found:
    closed = args.coco or args.reading != "own"  # the published readings know COCO's words alone
    words = (
        chair.coco_vocabulary() if closed else chair.vocabulary_of(chair.read_synonyms(args.synonyms)) if args.synonyms else None
    )
    truth = coco.read_objects(args.objects, chair_readings.read_as(args, words) if words else None)
    vocabulary, objects, unknown = known_objects(truth.objects, words, closed=closed, path=args.objects[0])
    if truth.of_coco and not words:
        warn(f"{truth.of_coco}: COCO's objects without --coco: captions are read without synonyms, so the scores are not CHAIR's")
    read = chair_readings.read_as(args, vocabulary)
    if unknown:
        warn(f"{args.objects[0]}: {len(unknown)} names are none of COCO's 80 objects, and left out: {', '.join(list(unknown)[:5])}")
    captions, given = [], {}
    for record in read_records(args.captions):
        key = picture_key(record.key(*PICTURE))
        if key in given:
            raise record.fail(f"{record.name_of(*PICTURE)} {shown(key)} occurs twice, first at {given[key].where}")
        if key not in objects:
            raise record.fail(f"{record.name_of(*PICTURE)} {shown(key)} is not in {' or '.join(args.objects)}")
        given[key] = record
        text = reply_of(record, field=args.reply, extra=("caption",))
        captions.append((key, coco.finished(text) if args.drop_unfinished else text))
    found = chair.chair(captions, objects, vocabulary, read)
    rows = [row | {"image_id": given[row["image_id"]].key(*PICTURE)} for row in found.pop("captions")]
    silent = sum(not row["generated"] for row in rows)
    if silent == len(rows):
        warn(f"{args.captions}: no caption names any object, so there is no CHAIR score (are they in English?)")
        found |= {"chair_s": None, "chair_i": None}
    if args.words:
        found["by_length"] = [at_length(captions, limit, objects, vocabulary, read, args.drop_unfinished) for limit in args.words]
    more = {"named_nothing": silent, "unknown_names": unknown} | chair_readings.named(args)
    items = [row | {"caption": text} for row, (_, text) in zip(rows, captions, strict=True)]
    return {"n": len(captions)} | found | more | {"captions": [{key: row[key] for key in CHAIR_SHOWN} for row in rows]}, items


def at_length(
    captions: Sequence[tuple[str, str]], limit: int, objects: Mapping, vocabulary: chair.Vocabulary, read: chair.Read, drop: bool
) -> dict:
    """The scores of every caption's first `limit` words; drop: without the sentence that the cut leaves unfinished."""
    cut = [(key, " ".join(text.split()[:limit])) for key, text in captions]
    scores = chair.chair([(key, coco.finished(text) if drop else text) for key, text in cut], objects, vocabulary, read)
    return {"words": limit} | {name: scores[name] for name in ("chair_s", "chair_i", "recall", "mean_words")}


def known_objects(
    objects: Mapping[str, Sequence[str]], words: chair.Vocabulary | None, *, closed: bool, path: str
) -> tuple[chair.Vocabulary, dict[str, list[str]], dict[str, int]]:
    """The vocabulary, the objects by its names, and how often each name occurs that a closed vocabulary lacks.

    Plurals in the ground truth are read as the vocabulary's word. Names beyond an open vocabulary are added to it.
    """
    names = dict(words.names) if words else {}
    single = {word for phrase in names for word in phrase}
    meaning, unknown = {}, Counter()
    for name in sorted({name for listed in objects.values() for name in listed}):
        phrase = chair.words_in(name)
        base = tuple(chair.singular(word, single) for word in phrase)
        if names.get(phrase) or names.get(base):
            meaning[name] = " ".join(phrase if names.get(phrase) else base)
        elif not closed:
            names[phrase] = meaning[name] = name
    for listed in objects.values():
        unknown.update(name for name in listed if name not in meaning)
    if unknown and not meaning:
        raise UserError(f"{path}: none of the names is one of COCO's 80 objects, the first is {shown(next(iter(unknown)))}")
    vocabulary = chair.Vocabulary(names, unless=words.unless if words else {})
    return (
        vocabulary,
        {key: [meaning[name] for name in listed if name in meaning] for key, listed in objects.items()},
        dict(unknown),
    )


def mme_command(args: argparse.Namespace) -> Found:
    tasks = mme.read_tasks(Path(args.answers), field=args.reply)
    found = mme.evaluate(tasks)
    if missing := [name for name in mme.SUBTASKS if name not in tasks]:
        warn(f"{args.answers}: no answers to {', '.join(missing)}, so there is no total of the four hallucination subtasks")
    if found["unread"]["total"]:
        total = sum(map(len, tasks.values()))
        warn(f"{args.answers}: {found['unread']['total']} of {total} answers are unread by MME's rule and count as wrong")
    return found, mme.verdicts(tasks)


def amber_command(args: argparse.Namespace) -> Found:
    annotations = read_records(args.annotations or args.answers)
    questions, generative = {}, set()
    for key, record in indexed(annotations, (("id", "question_id", "index"),)).items():
        kind = record.key("type", "category")
        if kind in amber.TYPES:
            questions[key] = record
        elif kind == "generative":
            generative.add(key)
        else:
            name = record.name_of("type", "category")
            raise record.fail(f'"{name}" must be "generative", {quoted(amber.TYPES)}, got {shown(kind)}')
    if not questions:
        raise UserError(f"{args.annotations or args.answers}: no discriminative questions in it")
    answers = read_records(args.answers) if args.annotations else annotations
    yes_no = [record for record in answers if record.key("id", *QUESTION_ID) not in generative]
    if not yes_no:
        raise UserError(f"{args.answers}: answers to generative questions alone; this command scores the discriminative ones")
    kinds = [amber.TYPES[record.key("type", "category")] for record in questions.values()]
    places = {key: place for place, key in enumerate(questions)}
    answered = [places[key] for record in yes_no if (key := record.key("id", *QUESTION_ID)) in places]
    scored = amber.answered_dimensions(kinds, answered) or list(amber.DIMENSIONS)
    asked = {
        key: record for key, record in questions.items() if any(kinds[places[key]] in amber.DIMENSIONS[name] for name in scored)
    }
    pairs = (
        match(list(asked.values()), yes_no, path=args.answers, field=args.reply)
        if args.annotations
        else self_matched(yes_no, field=args.reply)
    )
    truths = [pair.question.one_of(("yes", "no"), "truth", *LABEL) for pair in pairs]
    texts, types = [pair.reply for pair in pairs], [amber.TYPES[pair.question.key("type", "category")] for pair in pairs]
    left = [name for name in amber.DIMENSIONS if name not in scored and any(kind in amber.DIMENSIONS[name] for kind in kinds)]
    if left:
        warn(f"{args.answers}: no answers to {' and '.join(left)}; the scores are of {' and '.join(scored)} alone")
    found = amber.evaluate(truths, texts, types)
    warn_unread(args.answers, found["unparsed"], found["n"])
    more = {"scored": scored, "not_answered": left, "generative_passed_over": len(answers) - len(yes_no)}
    return found | more, amber.verdicts([pair.key for pair in pairs], truths, texts, types)


def hallusion_command(args: argparse.Namespace) -> Found:
    rows, seen = [], {}
    for record in map(hallusion_fields, read_records(args.answers)):
        row = {key: record.key(key) for key in hallusion.KEYS}
        item = tuple(row.values())
        if item in seen:
            raise record.fail(f"item {shown(' '.join(item))} occurs twice, first at {seen[item]}")
        seen[item] = record.where
        label, name = record.key(*HALLUSION_LABEL).lower(), record.name_of(*HALLUSION_LABEL)
        if label not in ("0", "1", "yes", "no"):
            raise record.fail(f'"{name}" must be "0", "1", "yes" or "no", got {shown(label)}')
        reply = reply_of(record, field=args.reply, extra=("model_prediction",), number=True, label=name)
        rows.append(row | {"label": {"0": "no", "1": "yes"}.get(label, label), "answer": reply})
    found = hallusion.evaluate(rows)
    if found["unparsed"]:
        warn(f"{args.answers}: {found['unparsed']} of {len(rows)} predictions could not be read as yes or no")
    return found, hallusion.verdicts(rows)


def hallusion_fields(record: Record) -> Record:
    """VLMEvalKit's table has the set, figure and question in its index ("..._0_1_0") and the subcategory as "l2-category"."""
    parts = str(record.fields.get("index") or "").split("_")
    if record.name_of("set_id") or len(parts) < 4 or not record.name_of("l2-category"):
        return record
    ids = dict(zip(("set_id", "figure_id", "question_id"), parts[3:6] if len(parts) > 5 else parts[-3:], strict=True))
    return Record({**record.fields, **ids, "subcategory": record.fields["l2-category"]}, record.where)


def challenge_command(args: argparse.Namespace) -> Found:
    answers = read_records(args.answers)
    if args.records:
        questions = challenge_questions(read_records(args.records))
        named = answers if args.by_order else challenge_answers(questions, answers)
        pairs = match(identified(questions), named, path=args.answers, field=args.reply, by_order=args.by_order)
    else:
        pairs = [
            Answered(key, record, record, challenge_reply(record, args.reply))
            for key, record in challenge_questions(answers).items()
        ]
    rows = []
    for pair in pairs:
        label = pair.question.key("correct_choice", "label").strip()
        row: dict = {"id": pair.key, "task": task_of(pair.question), "label": label, "answer": pair.reply.strip()}
        rows.append(row | {"type": pair.question.optional("type") or "", "choices": choices_of(pair.question)})
    read = challenge.with_answers_read(rows)
    return challenge.evaluate(read), challenge.verdicts(read)


def challenge_reply(record: Record, field: str | None) -> str:
    """The reply of a row that holds its question: "answer", unless a "text" that is no question says something else."""
    reply, text = reply_of(record, field=field, extra=("answer",)), record.optional("text")
    asked = {normal(held) for name in (*QUESTION, *ABOUT) if (held := record.optional(name))}
    if (
        text
        and not field
        and record.name_of("answer")
        and "?" not in text
        and normal(text) not in asked | {normal(record.text("answer"))}
    ):
        raise record.fail('"text" and "answer" could both be the reply; name the right one with --reply')
    return reply


def challenge_answers(questions: Mapping[str, Record], answers: Sequence[Record]) -> list[Record]:
    """The answers, those without an identifier under that of their item: its picture, and its claim where a picture has several."""
    named = []
    for record in answers:
        picture = record.optional("image_id", "image")
        if not record.name_of(*QUESTION_ID) and picture:
            key = f"{picture} {record.optional(*ABOUT) or ''}"
            if picture not in questions and key not in questions and any(name.startswith(f"{picture} ") for name in questions):
                name = record.name_of("image_id", "image")
                raise record.fail(
                    f'"{name}" {shown(picture)} has several items; add the "claim" to its answers, or --by-order if they stand in the '
                    "order of the records"
                )
            record = Record({**record.fields, "id": key if key in questions else picture}, record.where)
        named.append(record)
    return named


def identified(questions: Mapping[str, Record]) -> list[Record]:
    """The items under the identifiers that `challenge_questions` gives those without one."""
    return [r if r.name_of("id", "question_id") else Record({**r.fields, "id": key}, r.where) for key, r in questions.items()]


def challenge_questions(records: Sequence[Record]) -> dict[str, Record]:
    """Items by identifier; published records have none, and are known by picture and what is asked about it."""
    if any(record.name_of("id", "question_id") for record in records):
        return indexed(records, (("id", "question_id"),))
    pictures = Counter(record.key("image_id", "image") for record in records)
    if max(pictures.values()) == 1:
        return {record.key("image_id", "image"): record for record in records}
    found: dict[str, Record] = {}
    for record in records:
        about = record.optional(*ABOUT) or ""
        key = f"{record.key('image_id', 'image')} {about}"
        if key in found:
            raise record.fail(f"the same item occurs twice, first at {found[key].where}")
        found[key] = record
    return found


def task_of(record: Record) -> str:
    if record.name_of("task"):
        return record.key("task")
    told = "task2" if record.name_of("claim") else "task1" if record.name_of("system2_question", "system1_question") else None
    return told or record.key("task")


def choices_of(record: Record) -> dict[str, list[str]] | None:
    """Option -> its text, from the published `[{"id": "A", "choice": "True"}, ...]` or from {"A": "True"}."""
    held = record.fields.get("choices")
    if isinstance(held, dict):
        held = [{"id": key, "choice": value} for key, value in held.items()]
    if not isinstance(held, list) or not held:
        return None
    found: dict[str, list[str]] = {}
    for choice in held:
        if not isinstance(choice, dict) or not isinstance(choice.get("id"), str) or not isinstance(choice.get("choice"), str):
            raise record.fail(f'"choices": expected {{"id": "A", "choice": "..."}}, got {shown(choice)}')
        found[choice["id"].strip()] = [choice["choice"]]
    return found


def compare_command(args: argparse.Namespace) -> Found:
    records, generative = [], set()
    for record in read_records(args.labels):
        if "generative" not in (record.fields.get("type"), record.fields.get("category")):
            records.append(record)
        elif record.name_of(*QUESTION_ID):
            generative.add(record.key(*QUESTION_ID))
    if not records:
        raise UserError(f"{args.labels}: generative questions alone; compare needs questions with one right answer")
    texts: dict[str, list[str]] = {}
    keys: list[str] = []
    for side, path in (("a", args.a), ("b", args.b)):
        answers = [record for record in read_records(path) if not of_generative(record, generative)]
        asked = records
        if not args.by_order and records[0].name_of("correct_choice") and not records[0].name_of(*QUESTION_ID):
            questions = challenge_questions(records)
            asked, answers = identified(questions), challenge_answers(questions, answers)
        pairs = match(asked, answers, path=path, field=args.reply, by_order=args.by_order)
        keys = keys or [pair.key for pair in pairs]
        texts[side] = [pair.reply for pair in pairs]
    labels, choices = [record.key(*COMPARED).strip() for record in records], [choices_of(record) for record in records]
    if set(labels) <= set(DIGITS) and any(yes_no(text) for side in texts.values() for text in side):
        labels = [DIGITS[label] for label in labels]
        texts = {side: [DIGITS.get(text.strip(), text) for text in given] for side, given in texts.items()}
    images = [picture_or(record, key) for record, key in zip(records, keys, strict=True)]
    found = paired.evaluate(texts["a"], texts["b"], labels, images, choices=choices, seed=args.seed)
    for side, path in (("a", args.a), ("b", args.b)):
        if found[f"unparsed_{side}"]:
            warn(f"{path}: {found[f'unparsed_{side}']} of {len(labels)} replies could not be read and count as wrong")
    return found, paired.verdicts(keys, texts["a"], texts["b"], labels, images, choices)


def of_generative(record: Record, generative: Collection[str]) -> bool:
    return bool(generative) and bool(record.name_of(*QUESTION_ID)) and record.key(*QUESTION_ID) in generative


def picture_or(record: Record, key: str) -> str:
    """The question's picture; lmms-eval's log of MME names it in question_id. Without any, the question itself."""
    named = record.optional("question_id") or ""
    return record.picture() or (named if PICTURE_ENDING.search(named) else key)
