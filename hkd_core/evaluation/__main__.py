"""`python -m hkd_core.evaluation COMMAND`: benchmark scores from files made by any tool; a table in a terminal, else JSON.

Bad input gives one line on stderr, naming file and line, and exit code 2. docs/evaluation.md says what each command reads and
refuses.
"""

import argparse
import sys
from collections.abc import Callable

from hkd_core.common.errors import UserError
from hkd_core.evaluation import amber_generative, audit_command, chair_readings, output, pope
from hkd_core.evaluation import commands as run
from hkd_core.evaluation.arguments import Parser, whole_number

READS = "Files are JSON (lines, an array, objects one after the other), CSV, TSV, parquet or xlsx."


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m hkd_core.evaluation", description="Benchmark scores from files made by any tool.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)

    def add(
        name: str, function: Callable, summary: str, example: str, line: str, *, scores: bool = True, items: bool = True
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary}. {READS}",
            epilog=f"one line of its input:\n  {line}\n\nexample:\n  python -m hkd_core.evaluation {name} {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=function)
        if scores:
            command.add_argument("--format", choices=("json", "table"), help="default: a table in a terminal, else JSON")
        if items:
            command.add_argument("--per-item", metavar="FILE.csv", help="write every verdict, one row an item")
            command.add_argument("--reply", metavar="FIELD", help="the field of the answers that holds the model's reply")
        return command

    command = add(
        "pope",
        run.pope_command,
        "POPE under every public rule for reading answers",
        "--questions random.json popular.json adversarial.json --answers A.jsonl",
        '{"question_id": 1, "text": "Yes"}   and of the questions: {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in '
        'the image?", "label": "yes"}',
    )
    command.add_argument(
        "--questions",
        nargs="+",
        help="{question_id, image, text, label}; a file for each split, or a column category; may be left "
        "out if the answers' rows hold question and label (lmms-eval's sample log, VLMEvalKit's table)",
    )
    command.add_argument("--answers", required=True, nargs="+", help="{question_id, text}; a file for each split, or one for all")
    command.add_argument("--by-order", action="store_true", help="the answers stand in the order of the questions and need no ids")
    command.add_argument("--seed", type=whole_number(0), default=0, help="of the bootstrap (default 0)")

    command = add(
        "pope-build",
        run.pope_build_command,
        "POPE questions by the published rules",
        "--objects O.jsonl --split adversarial --seed 0",
        '{"image": "a.jpg", "objects": ["dog", "cup", "car"]}',
        scores=False,
        items=False,
    )
    command.add_argument("--objects", required=True, help="{image, objects}")
    command.add_argument("--split", required=True, choices=pope.SPLITS)
    command.add_argument("--seed", type=whole_number(0), default=0, help="of the random absent objects (default 0)")

    command = add(
        "chair",
        run.chair_command,
        "CHAIR of captions, in percent",
        "--captions C.jsonl --objects instances_val2014.json captions_val2014.json --coco",
        '{"image_id": 310196, "caption": "A man rides a bike."}',
    )
    command.add_argument("--captions", required=True, help="{image_id, caption}; COCO's pictures by number or by file name")
    command.add_argument(
        "--objects",
        required=True,
        nargs="+",
        help="what is in the pictures: JSON {image_id: [names]}, {image, objects}, COCO's instances and captions files, or "
        "results of the published script; several are united",
    )
    words = command.add_mutually_exclusive_group()
    words.add_argument("--synonyms", help="one set a line, comma separated, the first the canonical name")
    words.add_argument("--coco", action="store_true", help="COCO's 80 objects with the published synonyms and special cases")
    chair_readings.add_arguments(command)
    command.add_argument(
        "--words", type=whole_number(1), nargs="+", metavar="N", help="also the scores of every caption's first N words, for each N"
    )
    command.add_argument(
        "--drop-unfinished",
        action="store_true",
        help="the 64-token protocol: drop the last sentence of each caption (and of each cut by --words) if it is unfinished",
    )

    command = add(
        "mme",
        run.mme_command,
        "MME's subtasks and totals",
        "--answers answers/",
        "0001.jpg<TAB>Is there a dog in this image? Please answer yes or no.<TAB>Yes<TAB>Yes, there is.",
    )
    command.add_argument(
        "--answers", required=True, help="folder of existence.txt, count.txt, ...; or one file with the column category"
    )

    command = add(
        "amber",
        run.amber_command,
        "AMBER's yes-no questions; its positive class is No",
        "--annotations annotations.json --answers A.json",
        '{"id": 1005, "response": "No"}   and of the annotations: {"id": 1005, "type": "discriminative-hallucination", '
        '"truth": "no"}',
    )
    command.add_argument("--annotations", help="AMBER's {id, type, truth}; may be left out if the answers' rows hold them")
    command.add_argument("--answers", required=True, help="{id, response}; of all questions or of some dimensions")

    command = add(
        "hallusion",
        run.hallusion_command,
        "HallusionBench: aAcc, fAcc, qAcc and their mean",
        "--answers HallusionBench_result.json",
        '{"category": "VD", "subcategory": "figure", "set_id": "0", "figure_id": "1", "question_id": "0", "gt_answer": "1", '
        '"model_prediction": "Yes"}',
    )
    command.add_argument("--answers", required=True, help="the benchmark's file with a model_prediction added to each item")

    command = add(
        "challenge",
        run.challenge_command,
        "the challenge's tasks: precision, recall, F1",
        "--answers A.jsonl",
        '{"id": 1, "task": "task1", "label": "B", "answer": "(B)"}   or a published record with an answer added: {"metadata": '
        '{"image_id": "a.jpg", "claim": "...", "correct_choice": "A", "choices": [...]}, "answer": "A"}',
    )
    command.add_argument("--answers", required=True, help="{id, task, label, answer[, type]}, or {id, answer} with --records")
    command.add_argument("--records", help="the published records, if the answers do not hold them")
    command.add_argument("--by-order", action="store_true", help="the answers stand in the order of the records and need no ids")

    command = add(
        "compare",
        run.compare_command,
        "two models on the same questions, paired",
        "--a A.jsonl --b B.jsonl --labels L.jsonl",
        '{"question_id": 1, "text": "Yes"}   and of the labels: {"question_id": 1, "label": "yes", "image": "a.jpg"}',
    )
    command.add_argument("--a", required=True, help="answers of one model: {question_id, text}")
    command.add_argument("--b", required=True, help="answers of the other")
    command.add_argument("--labels", required=True, help="{question_id, label[, image]}")
    command.add_argument("--by-order", action="store_true", help="the answers stand in the order of the labels and need no ids")
    command.add_argument("--seed", type=whole_number(0), default=0, help="of the bootstrap (default 0)")

    line = '{"question_id": 1, "text": "Yes"[, "margin": 1.5]}   and of the questions: as for pope'
    command = add("audit", audit_command.run, "is a method more than a shift?", audit_command.EXAMPLE, line, items=False)
    audit_command.add_arguments(command)

    line = '{"id": 1, "response": "A dog."}   and of the annotations: {"id": 1, "type": "generative", "truth": ["dog"], "hallu": ["cat"]}'
    about = "AMBER's captions: CHAIR, Cover, Hal, Cog"
    command = add("amber-generative", amber_generative.run, about, amber_generative.EXAMPLE, line, items=False)
    amber_generative.add_arguments(command)
    return parser


def main(arguments: list[str] | None = None) -> int:
    try:
        args = build_parser().parse_args(arguments)
        found = args.run(args)
        if found is not None:
            result, items = found if isinstance(found, tuple) else (found, None)
            if items is not None and args.per_item:
                output.write_items(args.per_item, items)
            output.show(result, args.format)
    except UserError as error:
        output.complain(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
