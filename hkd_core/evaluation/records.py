"""Records of benchmark files made by any tool: which field is what, with mistakes named by file and line.

A `Record` is one row of a file. lmms-eval's sample logs and the challenge's published records are flattened, so that every field
is at the top. The names of fields in messages are those of the file.
"""

import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.evaluation.replies import final_reply
from hkd_core.evaluation.rows import read_rows, shown

QUESTION_ID = ("question_id", "id", "index", "doc_id", "qid", "idx")
# Fields that only hold a reply, and fields that hold a reply in some files and a question or label in others.
REPLY = (
    "filtered_resps",
    "model_prediction",
    "prediction",
    "response",
    "model_answer",
    "output",
    "predict",
    "pred",
    "model_output",
    "reply",
    "outputs",
    "generated_text",
    "model_response",
    "pred_answer",
    "predicted_answer",
    "ans",
)
MAYBE_REPLY = ("text", "answer")
ANSWER = (*MAYBE_REPLY, "response")  # the names that messages give
IMAGE = ("image", "image_id", "image_source", "image_path", "img", "image_name", "file_name", "filename")
QUESTION = ("question", "prompt", "query", "input", "instruction", "prompts", "input_text")
LABEL = ("label", "gt_answer", "ground_truth", "truth", "gt", "target", "answer")
SPLIT = ("category", "type", "split", "pope_type", "subtask")
PICTURE_ENDING = re.compile(r"\.(?:jpe?g|png|bmp|webp|gif|tiff?)$", re.IGNORECASE)
INSTRUCTION = re.compile(r"\b(?:answer|please|word|phrase|option|respond|reply)\b")
COCO_NAME = re.compile(r"(?:COCO_)?(?:train|val|test)\d{4}_(\d{12})")


@dataclass(frozen=True)
class Record:
    """One row of a file: its fields and its place, for messages."""

    fields: Mapping
    where: str

    def fail(self, message: str) -> UserError:
        return UserError(f"{self.where}: {message}")

    def name_of(self, *names: str) -> str | None:
        """The first of `names` that the row has a value for."""
        return next((name for name in names if self.fields.get(name) is not None), None)

    def get(self, *names: str) -> object:
        """The field under the first of `names` that is there."""
        name = self.name_of(*names)
        if name is None:
            raise self.fail(f"missing {quoted(names[:3])}{self.empty(names)}")
        return self.fields[name]

    def empty(self, names: Iterable[str]) -> str:
        """For a message: which of `names` is there without a value."""
        held = next((name for name in names if name in self.fields), None)
        return f' ("{held}" is there, but empty or NaN)' if held else ""

    def text(self, *names: str) -> str:
        value = self.get(*names)
        if not isinstance(value, str):
            raise self.fail(f'"{self.name_of(*names)}": expected a text, got {shown(value)}')
        return value

    def key(self, *names: str) -> str:
        """An identifier. 1, 1.0, "1" and "1.0" are the same one, as tools disagree on which to write."""
        value = self.get(*names)
        if isinstance(value, bool) or not isinstance(value, str | int | float) or value == "":
            raise self.fail(f'"{self.name_of(*names)}": expected a number or a text, got {shown(value)}')
        if isinstance(value, float):
            if not value.is_integer() or abs(value) > 2**53:  # beyond that a float no longer holds every whole number
                raise self.fail(f'"{self.name_of(*names)}": expected a whole number or a text, got {shown(value)}')
            return str(int(value))
        if isinstance(value, int):
            return str(value) if abs(value) < 10**100 else shown(value)
        return re.sub(r"^(-?\d+)\.0+$", r"\1", value.strip()) or value

    def one_of(self, values: Iterable[str], *names: str) -> str:
        """One of `values`, whatever its case."""
        given, allowed = self.get(*names), list(values)
        found = [value for value in allowed if isinstance(given, str) and given.strip().casefold() == value.casefold()]
        if not found:
            raise self.fail(f'"{self.name_of(*names)}" must be {quoted(allowed)}, got {shown(given)}')
        return found[0]

    def optional(self, *names: str) -> str | None:
        """A text or number under the first of `names` that holds one, else None."""
        held = (only(self.fields.get(name)) for name in names)
        found = (str(v) for v in held if isinstance(v, str | int | float) and not isinstance(v, bool) and str(v).strip())
        return next(found, None)

    def picture(self) -> str | None:
        """The picture's name as it is in the file, if there is one (not a picture's own bytes)."""
        named = (self.optional(name) for name in IMAGE)
        return next((name for name in named if name and len(name) < 300), None)


def quoted(names: Iterable[str]) -> str:
    *head, last = [f'"{name}"' for name in dict.fromkeys(names)]
    return f"{', '.join(head)} or {last}" if head else last


def read_records(path: str | Path) -> list[Record]:
    """Every row of a file. Raises UserError for a file that is missing, malformed or empty."""
    return [Record(flattened(fields), where) for where, fields in read_rows(path)]


def flattened(fields: dict) -> dict:
    """One level of fields: those of lmms-eval's "doc" and of the challenge's "metadata" beside the others; one reply, no list.

    lmms-eval's current logs hold no "doc". What is left of it stands in the scores ("pope_accuracy", "mme_perception_score",
    "aAcc"), and the prompt in "input".
    """
    replies = fields["filtered_resps"] if fields.get("filtered_resps") is not None else fields.get("resps")
    given = {} if replies is None else {"filtered_resps": only(replies)}
    if isinstance(fields.get("doc"), dict):
        kept = {name: value for name, value in fields.items() if name not in ("doc", "resps", "input", "arguments")}
        return fields["doc"] | kept | given
    if "doc_id" in fields:
        kept = {
            name: value
            for name, value in fields.items()
            if name not in ("doc", "resps", "arguments") and not isinstance(value, dict)
        }
        held = [value for name, value in fields.items() if isinstance(value, dict) and name not in ("doc", "arguments")]
        known = {name: value for scores in reversed(held) for name, value in scores.items() if not given or name not in REPLY}
        return known | kept | given
    metadata = fields.get("metadata")
    if isinstance(metadata, dict) and {"correct_choice", "choices", "correct_answer"} & set(metadata):
        return metadata | {name: value for name, value in fields.items() if name != "metadata"}
    return fields


def only(value: object) -> object:
    """The one item of nested lists of one."""
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    return value


def picture_key(name: str) -> str:
    """A picture's name without folder and ending; COCO's file names and zero-padded numbers become the number."""
    stem = PICTURE_ENDING.sub("", re.split(r"[/\\]", name.strip())[-1])
    coco = COCO_NAME.fullmatch(stem)
    number = coco.group(1) if coco else re.sub(r"^(\d+)\.0+$", r"\1", stem)
    if coco or (number.isascii() and number.isdigit()):
        return number.lstrip("0") or "0"
    return stem


def normal(text: str) -> str:
    """A text for comparison: lower case, single spaces."""
    return " ".join(text.casefold().split())


def asked(text: str) -> str:
    """A question for comparison: `normal`, up to its question mark, so without the prompt's "Answer in one word."."""
    text = normal(text.replace("<image>", " "))
    return text[: text.index("?") + 1] if "?" in text else text


class Echo(UserError):
    """The only text that could be a reply repeats the question. `name`: its field."""

    name = ""


def reply_of(
    record: Record,
    questions: Container[str] = (),
    *,
    field: str | None = None,
    extra: tuple[str, ...] = (),
    number: bool = False,
    label: str | None = None,
) -> str:
    """The model's reply, without its thoughts (`replies.final_reply`). See `reply_field`."""
    return final_reply(reply_field(record, questions, field=field, extra=extra, number=number, label=label)[1])


def reply_field(
    record: Record,
    questions: Container[str] = (),
    *,
    field: str | None = None,
    extra: tuple[str, ...] = (),
    number: bool = False,
    label: str | None = None,
) -> tuple[str, str]:
    """Which field holds the model's reply, and its text.

    A field named in `extra` or REPLY wins. Of "text" and "answer" the one that repeats a question is none: the row's own
    question, or one of `questions` (as `asked` makes them). field: the only field to read. number: a number may be a reply.
    label: the field of the label, where the row is its own question; it is no reply, and neither is a bare question.
    Raises UserError if no field, or more than one, could be the reply; Echo if only a repeated question is there.
    """
    given = _texts(record, (field,) if field else (*extra, *REPLY), number)
    if not given and not field:
        maybe = [name for name in MAYBE_REPLY if name != label]
        given = _without_questions(record, _texts(record, maybe, number), questions, own=label is not None)
    given = [(name, text) for name, text in given if text.strip()] or given
    different = {text.strip(): name for name, text in reversed(given)}
    if len(different) > 1:
        both = " and ".join(f'"{name}"' for name, _ in given[:2])
        raise record.fail(f"{both} could both be the reply; name the right one with --reply")
    if not given and label and not field:
        raise record.fail(f'no field holds a reply ("{label}" is the label){record.empty((*extra, *REPLY))}; name it with --reply')
    if not given:
        names = (field,) if field else (*extra[:1], *ANSWER)
        raise record.fail(f"missing {quoted(names)}{record.empty((field,) if field else (*extra, *REPLY, *MAYBE_REPLY))}")
    return given[0]


def _texts(record: Record, names: Iterable[str], number: bool) -> list[tuple[str, str]]:
    """(name, text) of the fields that the row has."""
    found = []
    for name in names:
        value = only(record.fields.get(name))
        if number and isinstance(value, int | float) and not isinstance(value, bool):
            value = f"{value:g}" if abs(value) < 10 else shown(value)
        if value is not None and not isinstance(value, str):
            raise record.fail(f'"{name}": expected a text, got {shown(value)}')
        if value is not None:
            found.append((name, value))
    return found


def _without_questions(
    record: Record, given: list[tuple[str, str]], questions: Container[str], *, own: bool = False
) -> list[tuple[str, str]]:
    """The texts that are no question. A question alone is a reply only if more than an instruction follows it.

    own: the row holds its own question, so any bare question is that. Raises Echo if only a repeated question is there.
    """
    itself = asked(record.optional(*QUESTION) or "")
    sure, likely, left = [], [], []
    for name, text in given:
        part = asked(text)
        rest = normal(text)[len(part) :]
        ends = part.endswith("?") and (not rest or bool(INSTRUCTION.search(rest)))
        if part and (part in questions or part == itself):
            (sure if ends or not rest else likely).append((name, text))
        elif not (ends and own):
            (likely if ends else left).append((name, text))
    if sure and not likely and not left:
        echo = Echo(
            f'{record.where}: "{sure[0][0]}" repeats the question, and no other field holds a reply; name the right one with --reply'
        )
        echo.name = sure[0][0]
        raise echo
    return left or likely


def asked_in(record: Record, reply: str) -> str | None:
    """What an answer's row says was asked: its own question, or the "text" or "answer" that is a question and not the reply."""
    named = ((name, record.optional(name) or "") for name in QUESTION)
    own = next((text for name, text in named if text and (name in QUESTION[:3] or " " in text.strip())), None)  # "input": "a.jpg"
    others = (record.optional(name) or "" for name in MAYBE_REPLY)
    return own or next((text for text in others if "?" in text and normal(text) != normal(reply)), None)
