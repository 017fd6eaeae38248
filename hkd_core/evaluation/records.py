"""Lines of benchmark files made by any tool: fields looked up under the names in use, mistakes named by file and line.

A `Record` is one line; functions below raise UserError with `file:line` and what was expected.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.common.files import read_json, read_jsonl, read_text

QUESTION_ID = ("question_id", "id")
ANSWER = ("text", "answer", "response")  # LLaVA's files say "text", POPE's own "answer", AMBER's "response"
IMAGE = ("image", "image_id")


@dataclass(frozen=True)
class Record:
    """One line of a file: its fields and its place, for messages."""

    fields: Mapping
    where: str

    def fail(self, message: str) -> UserError:
        return UserError(f"{self.where}: {message}")

    def get(self, *names: str) -> object:
        """The field under the first of `names` that is there."""
        for name in names:
            if self.fields.get(name) is not None:
                return self.fields[name]
        raise self.fail(f"missing {quoted(names)}")

    def text(self, *names: str) -> str:
        value = self.get(*names)
        if not isinstance(value, str):
            raise self.fail(f"{quoted(names)}: expected a text, got {value!r}")
        return value

    def key(self, *names: str) -> str:
        """An identifier; a number and its digits are the same one, as tools disagree on which to write."""
        value = self.get(*names)
        if isinstance(value, bool) or not isinstance(value, str | int) or value == "":
            raise self.fail(f"{quoted(names)}: expected a number or a text, got {value!r}")
        return str(value)

    def one_of(self, values: Iterable[str], *names: str) -> str:
        """One of `values`, whatever its case."""
        given, allowed = self.get(*names), list(values)
        found = [value for value in allowed if isinstance(given, str) and given.strip().casefold() == value.casefold()]
        if not found:
            shown = f'"{given}"' if isinstance(given, str) else repr(given)
            raise self.fail(f"{names[0]} must be {quoted(allowed)}, got {shown}")
        return found[0]


def quoted(names: Iterable[str]) -> str:
    *head, last = [f'"{name}"' for name in names]
    return f"{', '.join(head)} or {last}" if head else last


def read_records(path: str | Path) -> list[Record]:
    """Every line, or every item of a file that is one JSON array. Raises UserError for a file that is missing, malformed or empty."""
    if read_text(path).lstrip().startswith("["):
        items = read_json(path)
        records = [Record(fields, f"{path}: item {number}") for number, fields in enumerate(items, 1)]
        for record in records:
            if not isinstance(record.fields, dict):
                raise record.fail(f"expected a JSON object, got {type(record.fields).__name__}")
    else:
        records = [Record(fields, f"{path}:{number}") for number, fields in read_jsonl(path)]
    if not records:
        raise UserError(f"{path}: no lines in it")
    return records


def by_key(records: Iterable[Record], *names: str) -> dict[str, Record]:
    """Records by identifier. Raises UserError naming both places of one that occurs twice."""
    found: dict[str, Record] = {}
    for record in records:
        key = record.key(*names)
        if key in found:
            raise record.fail(f'{names[0]} "{key}" occurs twice, first at {found[key].where}')
        found[key] = record
    return found


def match(
    path: str | Path, questions: Mapping[str, Record], read: Callable[[Record], str] = lambda r: r.text(*ANSWER)
) -> list[str]:
    """Answers read from `path`, in the order of the questions.

    Raises UserError for an answer without question, a question without answer, or two answers to one.
    """
    answers = by_key(read_records(path), *QUESTION_ID)
    for key, record in answers.items():
        if key not in questions:
            raise record.fail(f'{QUESTION_ID[0]} "{key}" is no question')
    missing = [key for key in questions if key not in answers]
    if missing:
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(f'{path}: no answer to {QUESTION_ID[0]} "{missing[0]}", asked at {questions[missing[0]].where}{more}')
    return [read(answers[key]) for key in questions]
