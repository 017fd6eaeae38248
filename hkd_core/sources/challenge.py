"""The Responsible AI challenge (ACM MM 2025): task 1, which phrase is hallucinated, and task 2, is the claim factual.

A record is {"metadata": {...}}. Prompts hold everything that the record gives, then the options, one a line: "A. No hallucination".
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from hkd_core.data.wording import Wording
from hkd_core.evaluation.records import Record
from hkd_core.evaluation.rows import shown
from hkd_core.sources.source import Source

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class ChallengeWording(Wording):
    """Options as the challenge's prompts here list them."""

    def list_options(self, options: Sequence[str]) -> str:
        return "\n".join(f"{letter}. {option}" for letter, option in zip(LETTERS, options, strict=False))


WORDING = ChallengeWording()


def read(files: Mapping[Path, Sequence[Record]]) -> Source:
    """Examples of "task1" and "task2": `choices` are letters, `meta["options"]` what they stand for.

    An item without a right choice, as in a test set, is unlabelled.
    """
    source = Source("challenge", list(files))
    seen: dict[tuple[str, str], str] = {}
    for records in files.values():
        for record in records:
            with source.noting():
                task = "task2" if record.name_of("claim") else "task1"
                letters, options = _choices(record)
                answer = record.one_of(letters, "correct_choice") if record.name_of("correct_choice") else ""
                told = _task2(record) if task == "task2" else _task1(record)
                picture = record.text("image_id")
                told["prompt"] += f"\n{WORDING.list_options(options)}"
                first = seen.setdefault((picture, told["prompt"]), record.where)
                if first != record.where:
                    raise record.fail(f"the same item occurs twice, first at {first}")
                row = {"task": task, "choices": letters, "answer": answer, "meta": {"options": options}} | told
                source.add(record, f"{task}{'' if answer else ' without labels'}", picture, row)
    source.absent = [task for task in ("task1", "task2") if not any(part.startswith(task) for part in source.parts)]
    source.variant = "the published records"
    return source


def _task1(record: Record) -> dict:
    caption, asked = record.text("system1_answer"), record.text("system2_question")
    described = record.optional("system1_question")
    return {"caption": caption, "prompt": "\n".join(filter(None, (described, caption, asked)))}


def _task2(record: Record) -> dict:
    claim, context, asked = record.text("claim"), record.optional("context") or "", record.text("question")
    told = f"Context: {context}\n" if context else ""
    return {"claim": claim, "context": context, "prompt": f"{told}Claim: {claim}\n{asked}"}


def _choices(record: Record) -> tuple[list[str], list[str]]:
    """(letters, what they stand for). Raises UserError unless they are A, B, C, ... with a text each."""
    given = record.get("choices")
    items: list = given if isinstance(given, list) else []
    options: list[str] = [one.get("choice", "") for one in items if isinstance(one, dict)]
    letters: list[str] = [one.get("id", "") for one in items if isinstance(one, dict)]
    if len(options) < 2 or len(options) != len(items) or not all(isinstance(text, str) and text for text in options):
        raise record.fail(f'"choices": expected {{"id": "A", "choice": "..."}} at least twice, got {shown(given)}')
    if letters != list(LETTERS[: len(letters)]):
        raise record.fail(f'"choices": expected the ids A, B, C, ... in order, got {shown(letters)}')
    return letters, options
