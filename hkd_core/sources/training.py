"""Training data: LLaVA-Instruct's conversations, and plain tables of picture, prompt and answer."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from hkd_core.evaluation.records import QUESTION, Record
from hkd_core.evaluation.rows import shown
from hkd_core.sources.source import Source

MARK = "<image>"
ANSWER = ("answer", "label", "response", "output", "target")
TEXTS = ("caption", "context", "claim")


def read_llava(files: Mapping[Path, Sequence[Record]]) -> Source:
    """One example of the task "instruction" for each answer of a conversation; `meta` {id, turn from 1, history: [question, answer]s}.

    Conversations without a picture are left out and counted in the variant.
    """
    source, bare = Source("llava", list(files)), 0
    for records in files.values():
        for record in records:
            with source.noting():
                picture = record.optional("image")
                if not picture and MARK not in str(record.get("conversations")) and record.fields.get("image") is None:
                    bare += 1  # ShareGPT's rows, whose turns may begin anywhere
                    continue
                turns = _turns(record)
                marks = sum(question.count(MARK) for question, _ in turns)
                if record.fields.get("image") is not None and not picture:
                    raise record.fail(f'"image": expected one picture, got {shown(record.fields["image"])}')
                if marks > 1 or not picture:
                    raise record.fail(
                        f"expected one picture for one {MARK}, got {marks} {MARK} and {'one picture' if picture else 'none'}"
                    )
                turns = [["\n".join(filter(None, (part.strip() for part in q.split(MARK)))), a] for q, a in turns]
                for number, (question, answer) in enumerate(turns):
                    meta = {
                        "id": str(record.fields.get("id", "")),
                        "turn": number + 1,
                        "history": turns[:number],
                    }
                    row = {"task": "instruction", "prompt": question, "answer": answer, "meta": meta}
                    source.add(record, "first answers" if number == 0 else "later answers", picture, row)
    source.variant = "LLaVA's conversations" + (f"; left out: {bare:,} without a picture" if bare else "")
    return source


def _turns(record: Record) -> list[list[str]]:
    """[question, answer] pairs. Raises UserError unless human and gpt take turns, with a text each."""
    said = record.get("conversations")
    if not isinstance(said, list) or not said or len(said) % 2 or not all(isinstance(one, dict) for one in said):
        raise record.fail(f'"conversations": expected pairs of {{"from", "value"}}, got {shown(said)}')
    for number, one in enumerate(said):
        speaker = ("human", "gpt")[number % 2]
        if one.get("from") != speaker or not isinstance(one.get("value"), str) or not one["value"].replace(MARK, "").strip():
            raise record.fail(f'"conversations" item {number + 1}: expected a text from "{speaker}", got {shown(one)}')
    return [[said[k]["value"], said[k + 1]["value"].strip()] for k in range(0, len(said), 2)]


def read_table(files: Mapping[Path, Sequence[Record]]) -> Source:
    """Rows with a picture, a prompt, and if known an answer, choices (a list, or texts between "|"), task, caption, context, claim, objects."""
    source = Source("table", list(files), "rows of picture, prompt and answer")
    for records in files.values():
        for record in records:
            with source.noting():
                choices = _list(record, "choices")
                answer = (record.optional(*ANSWER) or "").strip()
                if answer and choices:
                    answer = record.one_of(choices, *ANSWER)
                row = {"task": record.optional("task") or "question", "prompt": record.text(*QUESTION), "answer": answer}
                if not row["prompt"].strip():
                    raise record.fail("the prompt is empty")
                row |= {name: record.optional(name) or "" for name in TEXTS}
                objects = _list(record, "objects")
                named = record.picture()
                if not named:
                    raise record.fail('missing "image", the picture\'s path')
                part = row["task"] + ("" if answer else " without answers")
                source.add(record, part, named, row | {"choices": choices, "objects": objects})
    return source


def _list(record: Record, name: str) -> list[str]:
    """A list of texts, as a list, as JSON in a cell, or between "|". [] where there is none."""
    value = record.fields.get(name)
    if isinstance(value, str):
        text = value.strip()
        try:
            value = json.loads(text) if text.startswith("[") else [part.strip() for part in text.split("|") if part.strip()]
        except (ValueError, RecursionError):
            value = text
    if value is not None and not (isinstance(value, list) and all(isinstance(one, str) and one for one in value)):
        raise record.fail(f'"{name}": expected a list of texts, or texts between "|", got {shown(value)}')
    return value or []
