"""Which answer belongs to which question: by identifier or by order; answers to other questions are refused.

A wrong pairing gives a score without an error, so the prompts, pictures and labels that answers carry are compared with the
questions'.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.evaluation.identify import SINGLE, fitting, hint_of, indexed, key_in, named, ways_of
from hkd_core.evaluation.records import (
    IMAGE,
    LABEL,
    MAYBE_REPLY,
    PICTURE_ENDING,
    QUESTION,
    QUESTION_ID,
    REPLY,
    SPLIT,
    Echo,
    Record,
    asked,
    asked_in,
    only,
    picture_key,
    reply_field,
)
from hkd_core.evaluation.replies import final_reply
from hkd_core.evaluation.rows import shown

WORD = re.compile(r"[^\W_]+")
# Words that say nothing about which question it is.
COMMON = set(
    WORD.findall(
        "a an the is are was there any of in on at to this that it do does you see have has with and or no not yes "
        "image imange picture photo photograph please answer question using single word phrase one only short"
    )
)
# Fields that are never a reply of unknown name.
KNOWN = {
    *QUESTION_ID,
    *QUESTION,
    *LABEL,
    *IMAGE,
    *SPLIT,
    *MAYBE_REPLY,
    "answer_id",
    "model_id",
    "model",
    "model_name",
    "doc_hash",
}
SPLITS_APART = 10_000_000  # LLaVA numbers the questions of its three splits from 1, 10000001 and 20000001


@dataclass(frozen=True)
class Answered:
    """One question with its answer."""

    key: str
    question: Record
    answer: Record
    reply: str


def question_text(record: Record) -> str:
    """What a question's row asks, "" if it does not say."""
    return record.optional("question", "text", *QUESTION) or ""


def match(
    questions: Sequence[Record],
    answers: Sequence[Record],
    *,
    path: str | Path,
    field: str | None = None,
    by_order: bool = False,
    extra: tuple[str, ...] = (),
) -> list[Answered]:
    """Every question with its answer, in the order of the questions.

    by_order: the first answer belongs to the first question, and so on, whatever their identifiers.
    Raises UserError, naming the places, for an answer without question, a question without answer, and two answers to one question.
    It also does for answers whose own prompt, picture or label is another question's.
    """
    keys, found = in_order(questions, answers, path) if by_order else by_identifier(questions, answers, path)
    texts = {asked(question_text(record)) for record in questions} - {""}
    given = replies_of(found, texts, field=field, extra=extra)
    pairs = [
        Answered(key, question, answer, final_reply(text))
        for key, question, answer, (_, text) in zip(keys, questions, found, given, strict=True)
    ]
    if not field and not extra:
        refuse_labels(pairs, {name for name, _ in given})
    check_pairs(pairs)
    return pairs


def replies_of(
    records: Sequence[Record],
    texts: Set[str] = frozenset(),
    *,
    own: bool = False,
    field: str | None = None,
    extra: tuple[str, ...] = (),
) -> list[tuple[str, str]]:
    """(field, text) of every reply. own: the rows hold their own questions and labels.

    A row that only repeats its question is a reply too, where most rows hold theirs in that field. Raises UserError.
    """
    found: list[tuple[str, str] | Echo] = []
    for record in records:
        label = record.name_of(*LABEL) if own else None
        try:
            found.append(reply_field(record, texts, field=field, extra=extra, label=label))
        except Echo as echo:
            found.append(echo)
    names = Counter(held[0] for held in found if not isinstance(held, Echo))
    read = []
    for record, held in zip(records, found, strict=True):
        if isinstance(held, Echo):
            if 2 * names[held.name] <= len(records):
                raise held
            held = (held.name, record.text(held.name))
        empty = next((name for name in names if name in record.fields and record.name_of(name) is None), None)
        if held[0] in MAYBE_REPLY and empty:  # what it holds instead may be the label
            raise record.fail(f'"{empty}" is empty or NaN, and holds the reply in other rows')
        read.append(held)
    return read


PERFECT = 20  # rows that all repeat the label are suspicious from this number on


def refuse_labels(pairs: Sequence[Answered], names: Set[str]) -> None:
    """Raises UserError where the answers' "answer" is the label in every row, and another field may be the reply."""
    if names != {"answer"} or not all(pair.answer.name_of(*QUESTION) or unknown_text(pair.answer) for pair in pairs):
        return
    if not any(unknown_text(pair.answer) for pair in pairs):
        # Nothing else can be the reply. A perfect model is possible; the questions' file itself, or all of a large one, is not.
        bare = all(set(pair.answer.fields) <= {*QUESTION, *QUESTION_ID, "answer"} for pair in pairs)
        itself = all(pair.answer.where == pair.question.where for pair in pairs)
        if not itself and (bare or len(pairs) < PERFECT):
            return
    folded = any(unknown_text(pair.answer) for pair in pairs)
    for pair in pairs:
        label, reply = pair.question.optional(*LABEL) or "", pair.reply
        if label != reply and not (folded and label.strip().casefold() == reply.strip().casefold().rstrip(".")):
            return
    other = next((name for pair in pairs if (name := unknown_text(pair.answer))), None)
    hint = f', perhaps "{other}"' if other else ""
    raise pairs[0].answer.fail(f'"answer" is the label in every row; name the field of the reply with --reply{hint}')


def unknown_text(record: Record) -> str | None:
    """A field of text whose meaning is not known."""
    return next((name for name, value in record.fields.items() if isinstance(only(value), str) and name not in KNOWN), None)


Found = tuple[list[str], Sequence[Record]]  # of each question: its name, its answer


def in_order(questions: Sequence[Record], answers: Sequence[Record], path: str | Path) -> Found:
    if len(answers) != len(questions):
        raise UserError(f"{path}: {len(answers)} answers to {len(questions)} questions; --by-order needs one for each")
    way = next((way for way in ways_of(questions) if way in SINGLE), None)
    return [key_in(record, way) if way else str(number) for number, record in enumerate(questions, 1)], answers


def by_identifier(questions: Sequence[Record], answers: Sequence[Record], path: str | Path) -> Found:
    ours, theirs = fitting(questions, answers)
    if theirs in SINGLE:
        need_identifiers(answers)
    asked_as, found = indexed(questions, ours), indexed(answers, theirs)
    for key, record in found.items():
        if key not in asked_as:
            hint = hint_of_splits(found) or hint_of(asked_as, found)
            raise record.fail(f"{named(record, theirs)} {shown(key)} is no question{hint}")
    missing = [key for key in asked_as if key not in found]
    if missing:
        first = asked_as[missing[0]]
        more = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
        raise UserError(f"{path}: no answer to {named(first, ours)} {shown(missing[0])}, asked at {first.where}{more}")
    return list(asked_as), [found[key] for key in asked_as]


def need_identifiers(answers: Sequence[Record]) -> None:
    if all(record.name_of(*QUESTION_ID) is None for record in answers):
        raise answers[0].fail(f'missing "{QUESTION_ID[0]}"; if the answers stand in the order of the questions, add --by-order')


def hint_of_splits(answers: Mapping[str, Record]) -> str:
    numbers = [int(key) for key in answers if key.isascii() and key.isdigit() and len(key) < 18]
    splits = len({number // SPLITS_APART for number in numbers})
    if splits < 2:
        return ""
    return f"; these are answers to {splits} splits, so give the questions of all of them (pope takes several files)"


def check_pairs(pairs: Sequence[Answered]) -> None:
    """Raises UserError for an answer whose prompt, picture or label shows that it belongs to another question."""
    different = {frozenset(words_of(question_text(pair.question))) for pair in pairs}
    shared = frozenset.intersection(*different) if len(different) > 1 else frozenset()
    pictures = {picture_key(name) for p in pairs if (name := p.question.picture())}
    prompts = [asked_in(pair.answer, pair.reply) for pair in pairs]
    if len(different) > 1 and len(set(prompts)) == 1 and not any(p.answer.name_of(*QUESTION[:3]) for p in pairs):
        prompts = [None] * len(pairs)  # an "instruction" that is the same everywhere
    for pair, prompt in zip(pairs, prompts, strict=True):
        reason = disagreement(pair, prompt, shared, pictures)
        if reason:
            advice = "do the answers belong to another split, or are their identifiers shifted?"
            raise pair.answer.fail(
                f"{reason}, but question {shown(pair.key)} ({pair.question.where}) {stated(pair, reason)}: {advice}"
            )


def disagreement(pair: Answered, prompt: str | None, shared: Set[str], pictures: set[str]) -> str | None:
    text = question_text(pair.question)
    if prompt and text:
        telling, there = words_of(text) - shared - COMMON, words_of(prompt)
        if not all(any(form in there for form in forms(word)) for word in telling):
            return f"the prompt is {shown(prompt)}"
    ours, theirs = pair.answer.picture(), pair.question.picture()
    if ours and theirs and picture_key(ours) != picture_key(theirs):
        both_files = PICTURE_ENDING.search(ours) and PICTURE_ENDING.search(theirs)
        if both_files or picture_key(ours) in pictures:
            return f"the picture is {shown(ours)}"
    label = own_label(pair.answer)
    wanted = own_label(pair.question)
    if label in ("yes", "no") and wanted in ("yes", "no") and label != wanted and pair.answer is not pair.question:
        return f'the label is "{label}"'
    return None


def own_label(record: Record) -> str:
    return (record.optional(*(name for name in LABEL if name != "answer")) or "").strip().lower()


def stated(pair: Answered, reason: str) -> str:
    if reason.startswith("the prompt"):
        return f"asks {shown(question_text(pair.question))}"
    if reason.startswith("the picture"):
        return f"is about {shown(pair.question.picture())}"
    return f'has "{own_label(pair.question)}"'


def forms(word: str) -> tuple[str, ...]:
    """A word, its plural and its singular, roughly: a prompt may ask for "dogs" where the question says "a dog"."""
    return word, f"{word}s", f"{word}es", word.removesuffix("s"), word.removesuffix("es")


def words_of(text: str) -> set[str]:
    return set(WORD.findall(text.casefold()))


def complete(records: Sequence[Record], field: str | None = None) -> bool:
    """Does every row hold its question, its label and a reply, as the tables of lmms-eval and VLMEvalKit do?"""
    return all(r.name_of(*((field,) if field else REPLY)) and r.name_of(*QUESTION) and r.name_of(*LABEL) for r in records)


def key_of_row(record: Record) -> str:
    """What identifies a row that holds question and answer: its identifier, else its picture and question."""
    if record.name_of("doc_id", "index", "id", "question_id"):
        return record.key("doc_id", "index", "id", "question_id")
    return f"{record.optional(*IMAGE) or ''} {asked(question_text(record))}"


def self_matched(records: Sequence[Record], *, field: str | None = None, extra: tuple[str, ...] = ()) -> list[Answered]:
    """Rows that hold question and answer. Raises UserError naming both places of one that occurs twice."""
    found: dict[str, Record] = {}
    for record in records:
        key = key_of_row(record)
        if key in found:
            raise record.fail(f"{shown(key)} occurs twice, first at {found[key].where}")
        found[key] = record
    given = replies_of(list(found.values()), own=True, field=field, extra=extra)
    pairs = [
        Answered(key, record, record, final_reply(text)) for (key, record), (_, text) in zip(found.items(), given, strict=True)
    ]
    if not field and not extra:
        refuse_labels(pairs, {name for name, _ in given})
    return pairs
