"""The arguments of the evaluation's commands, a function for each; a wrong one is one line."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from hkd_core.common.errors import UserError
from hkd_core.evaluation import chair_readings
from hkd_core.evaluation.pope import SPLITS


class Parser(argparse.ArgumentParser):
    """Raises UserError where argparse would print its usage and leave."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message} (see --help)")


def whole_number(low: int, high: int = 2**63 - 1) -> Callable[[str], int]:
    """An argument's type: a whole number from low to high."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"expected a whole number, got {text[:40]!r}") from None
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"expected a whole number from {low} to {high}, got {text[:40]}")
        return value

    return read


def pope(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--questions",
        nargs="+",
        help="{question_id, image, text, label}; a file for each split, or a column category; may be left "
        "out if the answers' rows hold question and label (lmms-eval's sample log, VLMEvalKit's table)",
    )
    command.add_argument("--answers", required=True, nargs="+", help="{question_id, text}; a file for each split, or one for all")
    command.add_argument("--by-order", action="store_true", help="the answers stand in the order of the questions and need no ids")
    command.add_argument("--seed", type=whole_number(0), default=0, help="of the bootstrap (default 0)")


def pope_build(command: argparse.ArgumentParser) -> None:
    command.add_argument("--objects", required=True, help="{image, objects}")
    command.add_argument("--split", required=True, choices=SPLITS)
    command.add_argument("--seed", type=whole_number(0), default=0, help="of the random absent objects (default 0)")


def chair(command: argparse.ArgumentParser) -> None:
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


def mme(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--answers", required=True, help="folder of existence.txt, count.txt, ...; or one file with the column category"
    )


def amber(command: argparse.ArgumentParser) -> None:
    command.add_argument("--annotations", help="AMBER's {id, type, truth}; may be left out if the answers' rows hold them")
    command.add_argument("--answers", required=True, help="{id, response}; of all questions or of some dimensions")


def hallusion(command: argparse.ArgumentParser) -> None:
    command.add_argument("--answers", required=True, help="the benchmark's file with a model_prediction added to each item")


def challenge(command: argparse.ArgumentParser) -> None:
    command.add_argument("--answers", required=True, help="{id, task, label, answer[, type]}, or {id, answer} with --records")
    command.add_argument("--records", help="the published records, if the answers do not hold them")
    command.add_argument("--by-order", action="store_true", help="the answers stand in the order of the records and need no ids")


def compare(command: argparse.ArgumentParser) -> None:
    command.add_argument("--a", required=True, help="answers of one model: {question_id, text}")
    command.add_argument("--b", required=True, help="answers of the other")
    command.add_argument("--labels", required=True, help="{question_id, label[, image]}")
    command.add_argument("--by-order", action="store_true", help="the answers stand in the order of the labels and need no ids")
    command.add_argument("--seed", type=whole_number(0), default=0, help="of the bootstrap (default 0)")
