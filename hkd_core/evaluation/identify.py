"""Which fields tell the rows of a file apart, and which of them the rows of another file share."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress

from hkd_core.common.errors import UserError
from hkd_core.evaluation.hallusion import KEYS
from hkd_core.evaluation.records import IMAGE, QUESTION, QUESTION_ID, SPLIT, Record, asked, picture_key
from hkd_core.evaluation.rows import shown

ASKED = (*QUESTION, "text")  # a question's text; "text" is the reply in a file of answers
Way = tuple[tuple[str, ...], ...]  # one or more fields, each under the first of its names that is there
ANY: Way = (QUESTION_ID,)
SINGLE: tuple[Way, ...] = (ANY, *(((name,),) for name in QUESTION_ID))
BY_PICTURE: Way = (IMAGE, ASKED)
TOGETHER: tuple[Way, ...] = (
    *((SPLIT, (name,)) for name in QUESTION_ID),
    tuple((name,) for name in KEYS),
    *(((name,), ASKED) for name in QUESTION_ID),
    BY_PICTURE,
)


def key_by(record: Record, way: Way) -> str | None:
    """What a row is called in this way, or None if it lacks a part of it."""
    parts = []
    for names in way:
        part = None
        if names == ASKED:
            part = asked(record.optional(*ASKED) or "") or None
        elif names == IMAGE:
            picture = record.picture()
            part = picture_key(picture) if picture else None
        elif record.name_of(*names):
            with suppress(UserError):
                part = record.key(*names)
        if part is None:
            return None
        parts.append(part.lower() if names == SPLIT else part)
    return " ".join(parts)


def key_in(record: Record, way: Way) -> str:
    """`key_by`. Raises UserError that says what is missing or wrong."""
    key = key_by(record, way)
    if key is None:
        for names in way:
            record.key(*names)
        raise record.fail(f"expected a value in {named(record, way)}")
    return key


def named(record: Record, way: Way) -> str:
    """The names of the fields by which a row is known."""
    return " and ".join(record.name_of(*names) or names[0] for names in way)


def ways_of(records: Sequence[Record]) -> Iterator[Way]:
    """The ways in which every row has a name and no two the same."""
    for way in (*SINGLE, *TOGETHER):
        keys: set[str | None] = set()
        for record in records:
            key = key_by(record, way)
            if key is None or key in keys:
                break
            keys.add(key)
        else:
            yield way


def fitting(questions: Sequence[Record], others: Sequence[Record]) -> tuple[Way, Way]:
    """How to name questions, and rows of another file, so that most of these are questions.

    A tie is won by the same way for both, then by one in which no two of the other rows are alike. Raises UserError naming two questions
    that nothing tells apart.
    """
    best, most = None, (-1, False, False)
    known: dict[Way, list[str | None]] = {}
    for ours in ways_of(questions):
        keys = {key_by(record, ours) for record in questions}
        for theirs in SINGLE if ours in SINGLE else (ours,):
            if theirs not in known:
                known[theirs] = [key_by(record, theirs) for record in others]
            given = known[theirs]
            fit = (sum(key in keys for key in given), ours == theirs, len(set(given)) == len(given))
            if fit == (len(others), True, True):
                return ours, theirs
            if fit > most:
                best, most = (ours, theirs), fit
    if best is None:
        indexed(questions, ANY)
    return best or (ANY, ANY)


def fits(questions: Sequence[Record], others: Sequence[Record]) -> bool:
    """Does something name a question in each of the other rows, and none twice?"""
    if next(ways_of(questions), None) is None:
        return False
    ours, theirs = fitting(questions, others)
    given = {key_by(record, theirs) for record in others}
    return len(given) == len(others) and given <= {key_by(record, ours) for record in questions}


def indexed(records: Sequence[Record], way: Way) -> dict[str, Record]:
    """Rows by name. Raises UserError naming both places of one that occurs twice."""
    found: dict[str, Record] = {}
    for record in records:
        key = key_in(record, way)
        first = found.setdefault(key, record)
        if first is not record:
            raise record.fail(f"{named(record, way)} {shown(key)} occurs twice, first at {first.where}")
    return found


def hint_of(questions: Mapping[str, object], others: Mapping[str, object]) -> str:
    """What may be wrong with identifiers of other rows that are no questions, for the end of a message."""
    if not all(key.isascii() and key.isdigit() and len(key) < 18 for key in (*questions, *others)):
        return ""
    ours, theirs = {int(key) for key in questions}, {int(key) for key in others}
    advice = "number them alike, or add --by-order if the answers stand in the order of the questions"
    if theirs <= ours:
        return f"; the identifiers differ in leading zeros: {advice}"
    for step, word in ((1, "low"), (-1, "high")):
        if {number + step for number in theirs} <= ours:
            return f"; the answers' identifiers are one too {word}: {advice}"
    return ""
