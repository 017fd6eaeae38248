"""Reading what a model replied: the part after its thoughts, yes or no, or one of several options."""

import re
from collections.abc import Collection, Mapping

THOUGHT = re.compile(r"<(/?)think(?:ing)?>", re.IGNORECASE)
WRAPPED = (re.compile(r"<answer>((?:(?!<answer>).)*)</answer>", re.DOTALL | re.IGNORECASE), re.compile(r"\\boxed\{([^{}]*)\}"))
WORD = re.compile(r"[^\W_]+")
OPENING = r"[\s:*_\"'(\[]*"
ANSWER_IS = (
    r"\banswer(?:\s+to\s+(?:the|this|your)\s+question)?[\s*_]*(?:is\b|would\s+be\b|:)"
    + OPENING
    + r"(?:(?:option|choice)\b"
    + OPENING
    + ")?"
)
SAID = re.compile(ANSWER_IS + r"(yes|no)\b(?!\W*(?:or|and|/)\b)", re.IGNORECASE)
MARKED = r"(?=\s*$|\s*[.:)\]*,;\n-])"  # a letter stands alone or has a mark behind it: "A cat" is no letter
LETTER = re.compile(r"^\W*(?:(?:option|choice)\W+)?([a-zA-Z])" + MARKED, re.IGNORECASE)
LISTED = re.compile(r"(?<![\w'])([a-zA-Z])[.):]+[\s*]*(?=\w)")
SAID_LETTER = re.compile(ANSWER_IS + r"([a-zA-Z])" + MARKED, re.IGNORECASE)


def final_reply(text: str) -> str:
    """What follows a model's thoughts, out of its wrapping.

    `<think>...</think>` goes; a thought that never ends leaves nothing. Of `<answer>...</answer>` or `\\boxed{...}` the last
    counts.
    """
    tags = list(THOUGHT.finditer(text))
    if tags:
        closed = [tag.end() for tag in tags if tag.group(1)]
        begun = [tag.start() for tag in tags if not tag.group(1) and tag.start() >= max(closed, default=0)]
        after = text[max(closed, default=0) : min(begun, default=len(text))].strip()
        text = after or text[: tags[0].start()].strip() * (tags[0].group(1) == "")
    for pattern in WRAPPED:
        found = pattern.findall(text)
        text = found[-1].strip() if found else text
    return text


def yes_no(text: str) -> str | None:
    """ "yes" or "no", or None for what says neither or both.

    The first word decides if the other one occurs nowhere. "The answer is no" or "Answer: no" decides wherever it stands, unless
    the first word or a second such sentence says the contrary.
    """
    words = WORD.findall(text.lower())
    stated = {word.lower() for word in SAID.findall(text)}
    first = words[0] if words and words[0] in ("yes", "no") else None
    if stated:
        agreed = stated | ({first} if first else set())
        return agreed.pop() if len(agreed) == 1 else None
    return first if first and not {"yes", "no"} <= set(words) else None


class Options:
    """The labels that an answer can be, with other wordings of each ("B" and the text of choice B).

    Labels that are the same but for their case are told apart by it; else case does not matter.
    """

    def __init__(self, labels: Collection[str], wordings: Mapping[str, Collection[str]] | None = None):
        self.labels = list(dict.fromkeys(labels))
        self.yes_no = bool(self.labels) and {label.lower() for label in self.labels} <= {"yes", "no"}
        folded: dict[str, set[str]] = {}
        for label in self.labels:
            for wording in (label, *(wordings or {}).get(label, ())):
                folded.setdefault(_bare(wording), set()).add(label)
        self.phrases = {phrase: next(iter(found)) for phrase, found in folded.items() if len(found) == 1 and phrase}
        self.longest = max((phrase.count(" ") + 1 for phrase in self.phrases), default=0)
        self.letters = {label for label in self.labels if len(label) == 1 and label.isalpha()}

    def read(self, text: str) -> str | None:
        """The label that a reply means, or None. "B", "B.", "(B)", "B: cat", "The answer is B" and choice B's own text are all B.

        More than one label, or a letter beside the text of another choice, is None.
        """
        text = text.strip()
        if text in self.labels:
            return text
        if self.yes_no:
            reading = yes_no(text)
            return next((label for label in self.labels if label.lower() == reading), None)
        if (whole := self.phrases.get(_bare(text))) is not None:
            return whole
        return self._by_letter(text) if self._leads_with_letter(text) else self._by_words(text)

    def _leads_with_letter(self, text: str) -> bool:
        return any(self._letter(found) for found in [*LETTER.findall(text), *SAID_LETTER.findall(text)])

    def _letter(self, written: str) -> str | None:
        if written in self.letters:
            return written
        other = written.swapcase()
        return other if other in self.letters else None

    def _by_letter(self, text: str) -> str | None:
        start = LETTER.match(text)
        letters = [*LETTER.findall(text), *SAID_LETTER.findall(text)]
        found = {label for letter in letters if (label := self._letter(letter)) is not None}
        if len(found) != 1:
            return None
        label = found.pop()
        if start and self._letter(start.group(1)):
            rest = text[start.end() :]
            words = [word for word in WORD.findall(rest) if word.lower() not in ("and", "or")]
            if words and all(len(word) == 1 and self._letter(word) not in (None, label) for word in words):
                return None
            if self.phrases.get(_bare(rest), label) != label or self._lists_another(rest, label):
                return None
        return label

    def _lists_another(self, rest: str, label: str) -> bool:
        """Does another option follow, as in "A. True" and "B. False" on two lines?"""
        for found in LISTED.finditer(rest):
            if self._letter(found.group(1)) in (None, label):
                continue
            words, before = _bare(rest[found.end() : found.end() + 400]), rest[: found.start()].rstrip(" \t*(-")
            own = [phrase for phrase, of in self.phrases.items() if of == self._letter(found.group(1)) and len(phrase) > 1]
            if before.endswith(("\n", ";", ",", "|")) or any(f"{words} ".startswith(f"{phrase} ") for phrase in own):
                return True
        return False

    def _by_words(self, text: str) -> str | None:
        found = re.split(ANSWER_IS, text, flags=re.IGNORECASE)
        words = _bare(found[-1] if len(found) > 1 and found[-1].strip() else text).split()
        size = next((size for size in range(min(self.longest, len(words)), 0, -1) if self._phrase(words[:size])), 0)
        if not size:
            return None
        label = self._phrase(words[:size])
        rest = words[size:]
        others = (self._phrase(rest[at : at + n]) for at in range(len(rest)) for n in range(1, min(self.longest, 8) + 1))
        return None if any(other not in (None, label) for other in others) else label

    def _phrase(self, words: list[str]) -> str | None:
        phrase = " ".join(words)
        return None if len(phrase) == 1 and phrase.isalpha() else self.phrases.get(phrase)


def _bare(text: str) -> str:
    """Words in lower case without marks."""
    return " ".join(WORD.findall(text.casefold()))
