"""Reading the arguments of the evaluation's commands: one line says what is wrong."""

import argparse
from collections.abc import Callable
from typing import NoReturn

from hkd_core.common.errors import UserError


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
