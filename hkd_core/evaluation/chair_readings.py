"""How a caption's objects are found: our own reading and the two behind published CHAIR scores.

    own       ours: singular forms by a short list, phrases of any length (`chair.mentioned`)
    pattern   the first published script (github.com/LisaAnne/Hallucination): pattern's singular forms
    wordnet   its descendants (OPERA, DeCo, ...): WordNet's base forms, by part of speech

Both published readings go through the same steps: lower case, tokens, base forms, pairs of words, objects. Their quirks are kept,
because published numbers contain them. "train track" and "home plate" are pairs that are no object. "motor bike" (a space before it
in the published list), "cheesecake" (the same) and "iphone" (a capital) are never found. "seat" is dropped wherever a toilet is named.
"""

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial

from hkd_core.common.errors import UserError
from hkd_core.evaluation.chair import AGES, ANIMALS, COCO, VEHICLES, Read, Vocabulary, mentioned, read_synonyms
from hkd_core.evaluation.wordnet import Dictionary, find_dictionary

READINGS = ("own", "pattern", "wordnet")
NEVER_FOUND = {"motor bike", "cheesecake", "iphone"}
# Names of two words that the published scripts join, beside those with "baby", "adult" and "passenger".
PAIRS = """motor bike, motor cycle, air plane, traffic light, street light, traffic signal, stop light, fire hydrant, stop sign,
parking meter, suit case, sports ball, baseball bat, baseball glove, tennis racket, wine glass, hot dog, cell phone, mobile phone,
teddy bear, hair drier, potted plant, laptop computer, home plate, train track"""
# Tokens as nltk's, as far as words go: a full stop is one where a space or a mark follows, and hyphens and slashes stay in the word.
FULL_STOP = re.compile(r"(?<!\.)\.(?=[^\w\s.,/%-]|\s|$)")
MARKS = re.compile(r"""[;@#$%&?!*\[\](){}<>"`“”‘’„«»]|--|\.{2,}|[:,](?!\d)""")
ENDINGS = re.compile(r"(?<=[^'\s])('s|'m|'d|'ll|'re|'ve|n't|')(?=\s|$)")
Tags = Callable[[Sequence[str]], list[str]]  # tokens -> n, v, a or r (noun, verb, adjective, adverb) for each


def pairs() -> dict[tuple[str, ...], str]:
    """Two words -> the word that they count as."""
    found: dict[tuple[str, ...], str] = {tuple(name.split()): name for name in PAIRS.replace("\n", " ").split(", ")}
    found |= {(age, animal): animal for age in AGES for animal in ANIMALS}
    found |= {("passenger", vehicle): vehicle for vehicle in VEHICLES}
    return found | {("bow", "tie"): "tie", ("toilet", "seat"): "toilet", ("wine", "glas"): "wine glass"}


def objects() -> dict[str, str]:
    """Word -> canonical name, for the words and pairs that the published scripts can find."""
    return {name: names[0] for names in read_synonyms(COCO) for name in names if name not in NEVER_FOUND}


def joined(words: Sequence[str], together: Mapping[tuple[str, ...], str]) -> list[str]:
    """Pairs of neighbours joined, from the left."""
    found, at = [], 0
    while at < len(words):
        pair = together.get(tuple(words[at : at + 2]))
        found.append(words[at] if pair is None else pair)
        at += 1 if pair is None else 2
    return found


def tokens(text: str) -> list[str]:
    """Words and marks of a text in lower case, as nltk's `word_tokenize` separates them (without its data)."""
    text = MARKS.sub(r" \g<0> ", FULL_STOP.sub(" . ", text.lower()))
    return ENDINGS.sub(r" \1", text).split()


def published(caption: str, base_forms: Callable[[list[str]], list[str]]) -> list[str]:
    """Canonical names of a caption's objects, by the steps of the published scripts."""
    together, names = _published_words()
    words = joined(base_forms(tokens(caption)), together)
    if "toilet" in words:
        words = [word for word in words if word != "seat"]
    return [names[word] for word in words if word in names]


@lru_cache(maxsize=1)
def _published_words() -> tuple[dict[tuple[str, ...], str], dict[str, str]]:
    return pairs(), objects()


def reading(name: str, vocabulary: Vocabulary) -> Read:
    """The function that finds a caption's objects. "own" reads by `vocabulary`, the others by COCO's published words.

    Raises UserError for an unknown name, and where a package or WordNet is missing.
    """
    if name not in READINGS:
        raise UserError(f'--reading: expected one of {", ".join(READINGS)}, got "{name}"')
    if name == "own":
        return partial(mentioned, vocabulary=vocabulary)
    if name == "pattern":
        singular = load_singular()
        return partial(published, base_forms=lambda words: [singular(word) for word in words])
    dictionary = find_dictionary()
    tags = load_tagger() or partial(tags_by_rule, dictionary=dictionary)
    return partial(published, base_forms=partial(lemmas, dictionary=dictionary, tags=tags))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--reading",
        choices=READINGS,
        default="own",
        help="how objects are found: own (default), or as published: pattern (the first script), wordnet (OPERA's and later); "
        "the published ones read COCO's words",
    )


def read_as(args: argparse.Namespace, vocabulary: Vocabulary) -> Read:
    """`reading` of a command's arguments. Raises UserError for words that a published reading would not use."""
    if args.reading != "own" and args.synonyms:
        raise UserError(f"--reading {args.reading} reads COCO's published words: leave out --synonyms")
    return reading(args.reading, vocabulary)


def named(args: argparse.Namespace) -> dict:
    """What the output says about the reading: its name and, for "wordnet", what tells nouns from verbs.

    That is "nltk" (as published) where nltk's tagger data are installed, else "rules" (ours).
    """
    tagger = {"tagger": "nltk" if load_tagger() else "rules"} if args.reading == "wordnet" else {}
    return {"reading": args.reading} | tagger


def load_singular() -> Callable[[str], str]:
    """TextBlob's port of pattern's singular forms."""
    try:
        from textblob.en.inflect import singularize
    except ImportError as error:
        raise UserError('--reading pattern needs textblob: install it with `pip install -e ".[chair]"`') from error
    # A word that ends in many apostrophes would recurse once for each, and is no object.
    return lru_cache(maxsize=100_000)(lambda word: word if word.endswith("''") else singularize(word))


@lru_cache(maxsize=1)
def load_tagger() -> Tags | None:
    """nltk's tagger as the published scripts use it, or None where its data are not installed."""
    try:
        from nltk.tag.perceptron import PerceptronTagger

        tagger = PerceptronTagger()
    except (ImportError, LookupError):
        return None
    parts = {"J": "a", "V": "v", "R": "r"}
    return lambda words: [parts.get(tag[:1], "n") for _, tag in tagger.tag(list(words))]


def lemmas(words: list[str], dictionary: Dictionary, tags: Tags) -> list[str]:
    return [dictionary.lemma(word, part) for word, part in zip(words, tags(words), strict=True)]


# Words before a form in "-ing" that make it a verb ("is skiing") or a noun ("a skiing trip").
VERB_FOLLOWS = frozenset({"is", "are", "be", "been", "was", "were", "being", "not", "also", "who", "them", "others", "by", "while"})
VERB_FOLLOWS |= {"people", "person", "man", "men", "woman", "women", "skiers", "time", "start", "begin"}
NOUN_FOLLOWS = frozenset({"a", "an", "the", "their", "his", "her", "its", "this", "that", "some", "no", "of", "for"})
NOUN_FOLLOWS |= {"winter", "go", "enjoying", "wearing"}
NOUN_BEFORE = {".", ",", "and", "or", ""}  # what follows "-ing" where it is a noun: "a day of skiing ."


def tags_by_rule(words: Sequence[str], dictionary: Dictionary) -> list[str]:
    """Our stand-in for nltk's tagger: noun or verb, by the ending and the neighbours.

    Only words whose base form changes an object matter: "seated" is a seat and "skiing" is skis if they are verbs.
    """
    kept = _words_of_names()
    around = ["", *words, ""]
    return [
        "n" if word in kept else part_by_rule(before, word, after, dictionary)
        for before, word, after in zip(around, words, around[2:], strict=False)
    ]


@lru_cache(maxsize=1)
def _words_of_names() -> frozenset[str]:
    """Single words of all names, as "potted" and "parking": those are never verbs here."""
    return frozenset(word for name in [*objects(), *map(" ".join, pairs())] for word in name.split())


def part_by_rule(before: str, word: str, after: str, dictionary: Dictionary) -> str:
    if word.endswith("ing"):
        if before in VERB_FOLLOWS or before.endswith("ly"):
            return "v"
        return "n" if before in NOUN_FOLLOWS or after in NOUN_BEFORE else "v"
    if word.endswith("ed") or (word in dictionary.irregular["v"] and word not in dictionary.known["n"]):
        return "v"
    return "n"
