"""`python -m hkd_core.evaluation COMMAND`: benchmark scores from files made by any tool; a table in a terminal, else JSON.

Bad input gives one line on stderr, naming file and line, and exit code 2. docs/evaluation.md says what each command reads and
refuses.
"""

import argparse
import sys
from collections.abc import Callable
from dataclasses import dataclass

from hkd_core.common.errors import UserError
from hkd_core.evaluation import amber_generative, arguments, audit_command, output
from hkd_core.evaluation import commands as run
from hkd_core.evaluation.arguments import Parser

READS = "Files are JSON (lines, an array, objects one after the other), CSV, TSV, parquet or xlsx."


@dataclass(frozen=True)
class Command:
    """A command: what runs it, what adds its arguments, and its help. scores: it prints a result; items: it can write every verdict."""

    name: str
    run: Callable
    add_arguments: Callable[[argparse.ArgumentParser], None]
    summary: str
    example: str
    line: str
    scores: bool = True
    items: bool = True


COMMANDS = (
    Command(
        "pope",
        run.pope_command,
        arguments.pope,
        "POPE under every public rule for reading answers",
        "--questions random.json popular.json adversarial.json --answers A.jsonl",
        '{"question_id": 1, "text": "Yes"}   and of the questions: {"question_id": 1, "image": "a.jpg", "text": "Is there a dog in '
        'the image?", "label": "yes"}',
    ),
    Command(
        "pope-build",
        run.pope_build_command,
        arguments.pope_build,
        "POPE questions by the published rules",
        "--objects O.jsonl --split adversarial --seed 0",
        '{"image": "a.jpg", "objects": ["dog", "cup", "car"]}',
        scores=False,
        items=False,
    ),
    Command(
        "chair",
        run.chair_command,
        arguments.chair,
        "CHAIR of captions, in percent",
        "--captions C.jsonl --objects instances_val2014.json captions_val2014.json --coco",
        '{"image_id": 310196, "caption": "A man rides a bike."}',
    ),
    Command(
        "mme",
        run.mme_command,
        arguments.mme,
        "MME's subtasks and totals",
        "--answers answers/",
        "0001.jpg<TAB>Is there a dog in this image? Please answer yes or no.<TAB>Yes<TAB>Yes, there is.",
    ),
    Command(
        "amber",
        run.amber_command,
        arguments.amber,
        "AMBER's yes-no questions; its positive class is No",
        "--annotations annotations.json --answers A.json",
        '{"id": 1005, "response": "No"}   and of the annotations: {"id": 1005, "type": "discriminative-hallucination", '
        '"truth": "no"}',
    ),
    Command(
        "hallusion",
        run.hallusion_command,
        arguments.hallusion,
        "HallusionBench: aAcc, fAcc, qAcc and their mean",
        "--answers HallusionBench_result.json",
        '{"category": "VD", "subcategory": "figure", "set_id": "0", "figure_id": "1", "question_id": "0", "gt_answer": "1", '
        '"model_prediction": "Yes"}',
    ),
    Command(
        "challenge",
        run.challenge_command,
        arguments.challenge,
        "the challenge's tasks: precision, recall, F1",
        "--answers A.jsonl",
        '{"id": 1, "task": "task1", "label": "B", "answer": "(B)"}   or a published record with an answer added: {"metadata": '
        '{"image_id": "a.jpg", "claim": "...", "correct_choice": "A", "choices": [...]}, "answer": "A"}',
    ),
    Command(
        "compare",
        run.compare_command,
        arguments.compare,
        "two models on the same questions, paired",
        "--a A.jsonl --b B.jsonl --labels L.jsonl",
        '{"question_id": 1, "text": "Yes"}   and of the labels: {"question_id": 1, "label": "yes", "image": "a.jpg"}',
    ),
    Command(
        "audit",
        audit_command.run,
        audit_command.add_arguments,
        "is a method more than a shift?",
        audit_command.EXAMPLE,
        '{"question_id": 1, "text": "Yes"[, "margin": 1.5]}   and of the questions: as for pope',
        items=False,
    ),
    Command(
        "amber-generative",
        amber_generative.run,
        amber_generative.add_arguments,
        "AMBER's captions: CHAIR, Cover, Hal, Cog",
        amber_generative.EXAMPLE,
        '{"id": 1, "response": "A dog."}   and of the annotations: {"id": 1, "type": "generative", "truth": ["dog"], "hallu": ["cat"]}',
        items=False,
    ),
)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m hkd_core.evaluation", description="Benchmark scores from files made by any tool.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Parser)
    for each in COMMANDS:
        command = commands.add_parser(
            each.name,
            help=each.summary,
            description=f"{each.summary}. {READS}",
            epilog=f"one line of its input:\n  {each.line}\n\nexample:\n  python -m hkd_core.evaluation {each.name} {each.example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        command.set_defaults(run=each.run)
        if each.scores:
            command.add_argument("--format", choices=("json", "table"), help="default: a table in a terminal, else JSON")
        if each.items:
            command.add_argument("--per-item", metavar="FILE.csv", help="write every verdict, one row an item")
            command.add_argument("--reply", metavar="FIELD", help="the field of the answers that holds the model's reply")
        each.add_arguments(command)
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
