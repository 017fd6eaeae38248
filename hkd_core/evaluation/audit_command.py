"""`audit` on files: POPE, AMBER, MME and any labelled yes-no questions, with two answerers' answers."""

import argparse
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hkd_core.common.errors import UserError
from hkd_core.evaluation import mme
from hkd_core.evaluation.arguments import whole_number
from hkd_core.evaluation.audit import UNREAD, Answers, audit
from hkd_core.evaluation.matching import Answered, check_pairs, question_text
from hkd_core.evaluation.pope_scores import strict
from hkd_core.evaluation.records import IMAGE, MAYBE_REPLY, QUESTION_ID, REPLY, Record, asked, by_key, read_records, reply_of
from hkd_core.evaluation.rows import decoded, read_bytes, shown

EXPLAINED = """\
Is a method more than a shift? Two answerers on the same yes-no questions.

d' is how well yes is told from no: 0 is chance, and 1 to 3 is usual. The criterion c is the lean: above 0 to No, below 0 to Yes.
A method that only leans more to No changes c and leaves d' where it is, even if its accuracy rises.
"""
EXAMPLE = "--questions Q.json --base A.jsonl --method B.jsonl"
LABEL = ("label", "truth", "gt_answer", "answer")
ASKED = ("text", "question", "query")
SPLIT = ("category", "type", "split", "subtask")
LABELS = {"yes": 1, "no": 0, "1": 1, "0": 0}
NAME = re.compile(r"\b(?:is|are) there (?:an? |any |some )?(.+?) in (?:the|this) \w+", re.IGNORECASE)


@dataclass(frozen=True)
class Item:
    """One labelled question; `label` is 1 for yes, 0 for no. `where` is for messages."""

    key: str
    image: str
    label: int
    split: str
    name: str
    where: str
    record: Record | None = None


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
        help="answers without the method, a file for each of questions; or MME's folder",
    )
    parser.add_argument("--method", required=True, nargs="+", metavar="FILE", help="answers with the method, likewise")
    parser.add_argument(
        "--margins",
        action="store_true",
        help='answers also hold "margin", log p(Yes) - log p(No): compare with the best constant shift',
    )
    parser.add_argument("--figure", metavar="FILE.png", help="draw the ROC with both operating points")
    parser.add_argument("--seed", type=whole_number(0), default=0, help="of the bootstrap (default 0)")


def run(args: argparse.Namespace) -> dict:
    if args.figure and Path(args.figure).suffix not in (".png", ".svg"):
        raise UserError(f"--figure: expected a name that ends in .png or .svg, got {args.figure}")
    answers, splits = read_mme(args) if not args.questions else read_files(args)
    found = audit(answers, splits, seed=args.seed)
    if args.figure:
        from hkd_core.evaluation.audit_figure import draw

        draw(answers, splits, found, args.figure)
    return found


def read_files(args: argparse.Namespace) -> tuple[Answers, list[str]]:
    """Questions with their labels, and both sides' answers in their order. Raises UserError naming file, line and what was expected."""
    for option in ("base", "method"):
        if len(getattr(args, option)) != len(args.questions):
            given = f"{len(args.questions)} of --questions and {len(getattr(args, option))} of --{option}"
            raise UserError(f"--{option}: expected a file for each file of --questions, got {given}")
    items, sides = [], {"base": [], "method": []}
    for place, path in enumerate(args.questions):
        asked, others = read_items(path, args.labels, split="" if len(args.questions) == 1 else Path(path).stem)
        items += asked
        for side, found in sides.items():
            found += read_side(getattr(args, side)[place], asked, others, margins=args.margins)
    return assembled(items, sides, margins=args.margins)


def read_items(path: str, labels: str | None, split: str) -> tuple[list[Item], set[str]]:
    """The questions of one file, and the identifiers of AMBER's generative part. `split` wins over the file's own field."""
    records = by_key(read_records(path), *QUESTION_ID)
    known = by_key(read_records(labels), *QUESTION_ID) if labels else records
    items, others = [], set()
    for key, record in records.items():
        truth = known.get(key)
        if truth is None:
            raise record.fail(f'{QUESTION_ID[0]} {shown(key)} has no label in {labels}')
        if "generative" in (record.fields.get("type"), truth.fields.get("type")):
            others.add(key)
            continue
        text = first(record, ASKED) or first(truth, ASKED) or key
        name = NAME.search(text)
        items.append(
            Item(
                key=key,
                image=first(record, IMAGE) or first(truth, IMAGE) or key,
                label=read_label(truth),
                split=split or first(record, SPLIT) or first(truth, SPLIT) or "all",
                name=first(record, ("object",)) or (name.group(1) if name else text).lower(),
                where=record.where,
                record=record,
            )
        )
    if not items:
        raise UserError(f"{path}: no yes-no questions in it")
    return items, others


def first(record: Record, names: Sequence[str]) -> str:
    """The first of the fields that is there, as text; else an empty text."""
    found = next((record.fields[name] for name in names if record.fields.get(name) not in (None, "")), "")
    return str(found) if isinstance(found, str | int) else ""


def read_label(record: Record) -> int:
    given = record.get(*LABEL)
    label = LABELS.get(str(given).strip().lower().rstrip("."))
    if label is None:
        raise record.fail(f'label must be "yes" or "no", got {shown(given)}')
    return label


def read_side(path: str, items: Sequence[Item], others: set[str], *, margins: bool) -> list[tuple[int, float]]:
    """(answer, margin) for each question; the margin is 0 where none are read. An answer without text is the sign of its margin.

    Raises UserError for a question without answer, and for an answer to what is neither a question nor among `others`.
    """
    records = by_key(read_records(path), *QUESTION_ID)
    known = others | {item.key for item in items}
    for key, answer in records.items():
        if key not in known:
            raise answer.fail(f'{answer.name_of(*QUESTION_ID)} {shown(key)} is no question')
    texts = {asked(question_text(item.record)) for item in items if item.record} - {""}
    found, pairs = [], []
    for item in items:
        record = records.get(item.key)
        if record is None:
            raise UserError(f'{path}: no answer to {QUESTION_ID[0]} {shown(item.key)}, asked at {item.where}')
        margin = read_margin(record) if margins else 0.0
        bare = margins and record.name_of(*REPLY, *MAYBE_REPLY) is None
        reply = "" if bare else reply_of(record, texts)
        found.append((int(margin > 0) if bare else code_of(strict(reply)), margin))
        if item.record:
            pairs.append(Answered(item.key, item.record, record, reply))
    check_pairs(pairs)
    return found


def read_margin(record: Record) -> float:
    given = record.get("margin")
    try:
        margin = float(given) if isinstance(given, int | float) and not isinstance(given, bool) else math.nan
    except OverflowError:
        margin = math.inf
    if not math.isfinite(margin):
        raise record.fail(f'"margin": expected a finite number, log p(Yes) - log p(No), got {shown(given)}')
    return margin


def code_of(answer: str | None) -> int:
    return {"yes": 1, "no": 0}.get(answer or "", UNREAD)


def read_mme(args: argparse.Namespace) -> tuple[Answers, list[str]]:
    """Two folders as MME's own script reads them: NAME.txt with lines of image, question, truth and answer between tabs."""
    if args.margins:
        raise UserError("--margins needs --questions: MME's own answer files hold no margins")
    if len(args.base) != 1 or not Path(args.base[0]).is_dir():
        raise UserError("--questions is missing: only MME's folders of answers hold the labels themselves")
    items, sides = [], {"base": [], "method": []}
    for side, found in sides.items():
        folder = Path(getattr(args, side)[0])
        rows = list(mme_rows(folder))
        if not rows:
            raise UserError(f"{folder}: no files NAME.txt in it")
        if side == "base":
            items = [item for item, _ in rows]
        elif [(item.key, item.label) for item, _ in rows] != [(item.key, item.label) for item in items]:
            raise UserError(f"{folder}: expected the same questions with the same truths in the same order as {args.base[0]}")
        found += [(answer, 0.0) for _, answer in rows]
    return assembled(items, sides, margins=False)


def mme_rows(folder: Path) -> Iterator[tuple[Item, int]]:
    for path in sorted(folder.glob("*.txt")):
        for number, line in enumerate(decoded(path, read_bytes(path)).split("\n"), 1):
            if not line.strip():
                continue
            fields = line.rstrip("\r").split("\t")
            if len(fields) != 4 or fields[2].strip().lower() not in ("yes", "no"):
                raise UserError(f"{path}:{number}: expected image, question, truth (Yes or No) and answer between tabs")
            image, question, truth, answer = fields
            item = Item(
                f"{path.stem}/{image}/{question}", image, LABELS[truth.strip().lower()], path.stem, question, f"{path}:{number}"
            )
            yield item, code_of(mme.parse(answer))


def assembled(items: Sequence[Item], sides: dict[str, list[tuple[int, float]]], *, margins: bool) -> tuple[Answers, list[str]]:
    answers = {side: np.array([answer for answer, _ in rows]) for side, rows in sides.items()}
    held = {f"{side}_margins": np.array([margin for _, margin in rows]) if margins else None for side, rows in sides.items()}
    labels, images, names = ([getattr(item, field) for item in items] for field in ("label", "image", "name"))
    return Answers(np.array(labels), images=np.array(images), names=np.array(names), **answers, **held), [
        item.split for item in items
    ]
