"""`audit` on files: POPE, AMBER, MME and any labelled yes-no questions, with two answerers' answers."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from hkd_core.common.errors import UserError
from hkd_core.evaluation import mme
from hkd_core.evaluation.arguments import whole_number
from hkd_core.evaluation.audit import UNREAD, Answers, audit
from hkd_core.evaluation.audit_files import Item, Read, read_sides
from hkd_core.evaluation.output import warn
from hkd_core.evaluation.records import Record, asked, picture_key, read_records

EXPLAINED = """\
Is a method more than a shift? Two answerers on the same yes-no questions.

d' is how well yes is told from no: 0 is chance, and 1 to 3 is usual. The criterion c is the lean: above 0 to No, below 0 to Yes.
A method that only leans more to No changes c and leaves d' where it is, even if its accuracy rises.
"""
EXAMPLE = "--questions Q.json --base A.jsonl --method B.jsonl"
SIDES = ("base", "method")
CODES = {"yes": 1, "no": 0, "other": UNREAD}
Splits = list[tuple[str, ...]]  # of each question


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = EXPLAINED
    parser.add_argument(
        "--questions", nargs="+", metavar="FILE", help="lines {question_id, image, text, label}; several files are several splits"
    )
    parser.add_argument("--labels", metavar="FILE", help="labels where the questions have none: AMBER's annotations.json")
    parser.add_argument(
        "--base",
        required=True,
        nargs="+",
        metavar="FILE",
        help="answers without the method, a file for each of questions or one for all; or MME's folder or table",
    )
    parser.add_argument("--method", required=True, nargs="+", metavar="FILE", help="answers with the method, likewise")
    parser.add_argument(
        "--margins",
        action="store_true",
        help='answers also hold "margin", log p(Yes) - log p(No): compare with the best constant shift',
    )
    parser.add_argument("--by-order", action="store_true", help="the answers stand in the order of the questions and need no ids")
    parser.add_argument("--reply", metavar="FIELD", help="the field of the answers that holds the model's reply")
    parser.add_argument("--figure", metavar="FILE.png", help="draw the ROC with both operating points")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of the bootstrap (default 0)")


def run(args: argparse.Namespace) -> dict:
    if args.figure and Path(args.figure).suffix not in (".png", ".svg"):
        raise UserError(f"--figure: expected a name that ends in .png or .svg, got {args.figure}")
    items, sides = read_mme(args) if not args.questions else from_questions(args)
    answers, splits = assembled(items, sides, margins=args.margins)
    found = audit(answers, splits, seed=args.seed)
    if args.figure:
        from hkd_core.evaluation.audit_figure import draw

        draw(answers, splits, found, args.figure)
    for side in SIDES:
        unread = int((getattr(answers, side) == UNREAD).sum())
        if unread:
            warn(f"--{side}: {unread} of {len(answers.labels)} answers say neither yes nor no, and count as wrong")
    return found


def from_questions(args: argparse.Namespace) -> tuple[list[Item], dict[str, list[Read]]]:
    sides = {side: getattr(args, side) for side in SIDES}
    return read_sides(args.questions, args.labels, sides, margins=args.margins, reply=args.reply, by_order=args.by_order)


def read_mme(args: argparse.Namespace) -> tuple[list[Item], dict[str, list[Read]]]:
    """MME's answers, which hold questions and truths: folders or tables, as `mme.read_tasks` reads them, paired by question."""
    if args.margins:
        raise UserError("--margins needs --questions (a table that holds questions and labels may be given there again)")
    tasks = {side: mme_items(getattr(args, side), side, args.reply) for side in SIDES}
    base, method = tasks.values()
    for one, other, path in ((base, method, args.base[0]), (method, base, args.method[0])):
        strange = next((item for key, (item, _) in other.items() if key not in one), None)
        if strange:
            raise UserError(
                f"{strange.record.where}: {path} has no answer to this question with this truth about picture {strange.image}; "
                "expected the same questions on both sides"
            )
    there = {subtask for subtask, *_ in base}
    if missing := [name for name in (*mme.PERCEPTION, *mme.COGNITION) if name not in there]:
        warn(f"MME: subtasks that are not there: {', '.join(missing)}")
    sides = {side: [(tasks[side][key][1], 0.0) for key in base] for side in SIDES}
    return [item for item, _ in base.values()], sides


def mme_items(paths: Sequence[str], side: str, reply: str | None) -> dict[tuple[str, ...], tuple[Item, int]]:
    """(subtask, picture, question, truth) -> the question and its answer, read as MME's script does."""
    path = Path(paths[0])
    known = {name.lower() for name in (*mme.PERCEPTION, *mme.COGNITION)}
    if len(paths) > 1 or (path.is_file() and known.isdisjoint((subtask or "").lower() for subtask in subtasks_of(path))):
        raise UserError(f"--{side}: {path} is not MME's answers, which alone hold the labels: give the questions with --questions")
    found: dict[tuple[str, ...], tuple[Item, int]] = {}
    for subtask, asked_here in mme.read_tasks(path, reply).items():
        for row in asked_here:
            key = (subtask, picture_key(row.image), asked(row.question), row.truth)
            label, image = int(row.truth == "yes"), f"{subtask}/{picture_key(row.image)}"
            item = Item(Record({}, row.where), image, label, (subtask,), row.question)
            first = found.setdefault(key, (item, CODES[mme.parse(row.answer)]))[0]
            if first is not item:
                raise UserError(f"{row.where}: this question occurs twice, first at {first.record.where}")
    return found


def subtasks_of(path: Path) -> set[str | None]:
    return {record.optional("category", "subtask", "task") for record in read_records(path)}


def assembled(items: Sequence[Item], sides: Mapping[str, list[Read]], *, margins: bool) -> tuple[Answers, Splits]:
    answers = {side: np.array([answer for answer, _ in rows]) for side, rows in sides.items()}
    held = {f"{side}_margins": np.array([margin for _, margin in rows]) if margins else None for side, rows in sides.items()}
    labels, images, names = (np.array([getattr(item, name) for item in items]) for name in ("label", "image", "name"))
    return Answers(labels, images=images, names=names, **answers, **held), [item.splits for item in items]
