"""`python -m hkd_core.evaluation COMMAND`: benchmark scores from files made by any tool; JSON on stdout.

Bad input gives one line on stderr, naming file and line, and exit code 2.
"""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

from hkd_core.errors import UserError
from hkd_core.evaluation import amber, amber_generative, audit_command, chair_readings, challenge, hallusion, mme, pope, pope_scores
from hkd_core.evaluation import statistics as stats
from hkd_core.evaluation.chair import by_length, chair, coco_vocabulary, read_synonyms, vocabulary_of
from hkd_core.evaluation.records import ANSWER, IMAGE, QUESTION_ID, Record, by_key, match, quoted, read_records
from hkd_core.files import read_json


def pope_command(args: argparse.Namespace) -> dict:
    questions = by_key(read_records(args.questions), *QUESTION_ID)
    texts = match(args.answers, questions)
    labels = [question.one_of(("yes", "no"), "label") for question in questions.values()]
    images = [question.key(*IMAGE) for question in questions.values()]
    asked = [question.text("text", "question") for question in questions.values()]
    found = pope_scores.evaluate(texts, labels, images, asked, seed=args.seed)
    for warning in found["provenance"]["warnings"]:
        print(f"warning: {args.questions}: {warning}", file=sys.stderr)
    return found


def pope_build_command(args: argparse.Namespace) -> None:
    pictures = []
    for record in read_records(args.objects):
        objects = record.get("objects")
        if not isinstance(objects, list) or not all(isinstance(name, str) and name for name in objects):
            raise record.fail(f'"objects": expected a list of names, got {objects!r}')
        pictures.append({"image": record.key(*IMAGE), "objects": objects})
    for question in pope.build_questions(pictures, args.split, seed=args.seed):
        print(json.dumps({key: question[key] for key in ("question_id", "image", "text", "label")}, ensure_ascii=False))


def chair_command(args: argparse.Namespace) -> dict:
    objects = read_json(args.objects)
    if not isinstance(objects, dict) or not all(isinstance(names, list) for names in objects.values()):
        raise UserError(f"{args.objects}: expected an object that maps image_id to a list of names")
    captions = []
    for record in read_records(args.captions):
        image_id = record.key("image_id", "image")
        if image_id not in objects:
            raise record.fail(f'image_id "{image_id}" is not in {args.objects}')
        captions.append((image_id, record.text("caption", "text")))
    if args.coco or args.reading != "own":
        vocabulary = coco_vocabulary()
    else:
        names = [[name] for name in sorted({str(name) for listed in objects.values() for name in listed})]
        vocabulary = vocabulary_of((read_synonyms(args.synonyms) if args.synonyms else []) + names)
    read = chair_readings.read_as(args, vocabulary)
    found = chair(captions, objects, vocabulary, read)
    if args.words:
        found["by_length"] = by_length(captions, args.words, objects, vocabulary, read)
    shown = [{key: row[key] for key in ("image_id", "generated", "hallucinated")} for row in found.pop("captions")]
    return {"n": len(captions)} | found | chair_readings.named(args) | {"captions": shown}


def mme_command(args: argparse.Namespace) -> dict:
    return mme.evaluate(Path(args.answers))


def amber_command(args: argparse.Namespace) -> dict:
    questions = {}
    for key, record in by_key(read_records(args.annotations), "id", "question_id").items():
        kind = record.key("type")
        if kind in amber.TYPES:
            questions[key] = record
        elif kind != "generative":
            raise record.fail(f'"type" must be "generative", {quoted(amber.TYPES)}, got "{kind}"')
    if not questions:
        raise UserError(f"{args.annotations}: no discriminative questions in it")
    truths = [record.one_of(("yes", "no"), "truth", "label") for record in questions.values()]
    types = [amber.TYPES[record.key("type")] for record in questions.values()]
    return amber.evaluate(truths, match(args.answers, questions), types)


def hallusion_command(args: argparse.Namespace) -> dict:
    rows = []
    for record in read_records(args.answers):
        row = {key: record.key(key) for key in hallusion.KEYS}
        label = record.key("gt_answer", "label").lower()
        if label not in ("0", "1", "yes", "no"):
            raise record.fail(f'"gt_answer" must be "0", "1", "yes" or "no", got "{label}"')
        rows.append(row | {"label": {"0": "no", "1": "yes"}.get(label, label), "answer": record.text("model_prediction", *ANSWER)})
    return hallusion.evaluate(rows)


def challenge_command(args: argparse.Namespace) -> dict:
    rows = []
    records = by_key(read_records(args.answers), "id", "question_id")
    for record in records.values():
        row = {"task": record.key("task"), "label": record.text("label").strip(), "answer": record.text("answer").strip()}
        rows.append(row | {"type": str(record.fields.get("type") or "")})
    labels = {row["label"].casefold(): row["label"] for row in rows}
    return challenge.evaluate([row | {"answer": labels.get(row["answer"].casefold(), row["answer"])} for row in rows])


def compare_command(args: argparse.Namespace) -> dict:
    questions = by_key(read_records(args.labels), *QUESTION_ID)
    labels = [read_label(record) for record in questions.values()]
    right = {}
    for side, path in (("a", args.a), ("b", args.b)):
        answers = match(path, questions, lambda record: record.text(*ANSWER))
        right[side] = [is_right(answer, label) for answer, label in zip(answers, labels, strict=True)]
    images = [str(record.fields.get("image", record.fields.get("image_id", key))) for key, record in questions.items()]
    counts = {side: np.array([[value, 1.0] for value in values]) for side, values in right.items()}
    difference, low, high = stats.paired_interval(
        counts["a"], counts["b"], images, lambda sums: sums[..., 0] / sums[..., 1], draws=10_000, seed=args.seed
    )
    shares = {f"accuracy_{side}": float(np.mean(values)) for side, values in right.items()}
    return (
        {"n": len(labels)} | shares | {"difference": difference, "low": low, "high": high} | stats.mcnemar(right["a"], right["b"])
    )


def read_label(record: Record) -> str:
    return record.text("label", "answer").strip()


def is_right(answer: str, label: str) -> bool:
    """Yes/no labels by the strict rule, so that "Yes, there is." counts; others word for word, whatever their case."""
    if label.lower() in ("yes", "no"):
        return pope_scores.strict(answer) == label.lower()
    return answer.strip().rstrip(".").casefold() == label.casefold()


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hkd_core.evaluation", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Callable, summary: str, example: str) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=summary,
            epilog=f"example:\n  python -m hkd_core.evaluation {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=run)
        return command

    command = add("pope", pope_command, "POPE under every public rule for reading answers", "--questions Q.json --answers A.jsonl")
    command.add_argument("--questions", required=True, help="lines {question_id, image, text, label}")
    command.add_argument("--answers", required=True, help="lines {question_id, text}")
    command.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")

    command = add(
        "pope-build", pope_build_command, "POPE questions by the published rules", "--objects O.jsonl --split adversarial --seed 0"
    )
    command.add_argument("--objects", required=True, help="lines {image, objects}")
    command.add_argument("--split", required=True, choices=pope.SPLITS)
    command.add_argument("--seed", type=int, default=0, help="of the random absent objects (default 0)")

    command = add("chair", chair_command, "CHAIR of captions, in percent", "--captions C.jsonl --objects G.json --synonyms S.txt")
    command.add_argument("--captions", required=True, help="lines {image_id, caption}")
    command.add_argument("--objects", required=True, help="JSON {image_id: [names]}")
    words = command.add_mutually_exclusive_group()
    words.add_argument("--synonyms", help="one set a line, comma separated, the first the canonical name")
    words.add_argument("--coco", action="store_true", help="COCO's 80 objects with the published synonyms and special cases")
    chair_readings.add_arguments(command)
    command.add_argument(
        "--words", type=int, nargs="+", metavar="N", help="also the scores of every caption's first N words, for each N"
    )

    command = add("mme", mme_command, "MME's four hallucination subtasks", "--answers answers/")
    command.add_argument("--answers", required=True, help="folder of existence.txt, count.txt, position.txt, color.txt")

    command = add(
        "amber",
        amber_command,
        "AMBER's yes-no questions; its positive class is No",
        "--annotations annotations.json --answers A.json",
    )
    command.add_argument("--annotations", required=True, help="AMBER's {id, type, truth}; those of captions are passed over")
    command.add_argument("--answers", required=True, help="{id, response}")

    command = add("hallusion", hallusion_command, "HallusionBench: aAcc, qAcc, fAcc", "--answers HallusionBench.json")
    command.add_argument("--answers", required=True, help="the benchmark's file with a model_prediction added to each item")

    command = add("challenge", challenge_command, "the challenge's tasks: precision, recall, F1", "--answers A.jsonl")
    command.add_argument("--answers", required=True, help="lines {id, task, label, answer[, type]}")

    command = add(
        "compare", compare_command, "two models on the same questions, paired", "--a A.jsonl --b B.jsonl --labels L.jsonl"
    )
    command.add_argument("--a", required=True, help="answers of one model: lines {question_id, text}")
    command.add_argument("--b", required=True, help="answers of the other")
    command.add_argument("--labels", required=True, help="lines {question_id, label[, image]}")
    command.add_argument("--seed", type=int, default=0, help="of the bootstrap (default 0)")

    audit_command.add_arguments(add("audit", audit_command.run, "is a method more than a shift?", audit_command.EXAMPLE))
    generative = amber_generative
    generative.add_arguments(
        add("amber-generative", generative.run, "AMBER's captions: CHAIR, Cover, Hal, Cog", generative.EXAMPLE)
    )
    return parser


def main(arguments: list[str] | None = None) -> int:
    args = build_parser().parse_args(arguments)
    try:
        result = args.run(args)
        if result is not None:
            print(json.dumps(result, indent=2, ensure_ascii=False))
        sys.stdout.flush()
    except UserError as error:
        print(str(error), file=sys.stderr)
        return 2
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
