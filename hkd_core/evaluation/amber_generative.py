"""AMBER's generative part (arXiv 2311.07397): the nouns of a description against what is in the picture and what is likely dreamt up.

CHAIR: nouns that name nothing there. Cover: things there that are named. Hal: descriptions with a noun that names nothing there. Cog:
things that people expect and that are not there, named all the same. A noun counts if it is in AMBER's list. It names a thing if it is
that word, one of its associated words, or similar enough to one of them. Published scores need spaCy's en_core_web_lg for "similar",
and nltk's tagger for "noun"; both are functions here. Source: inference.py of github.com/junyangwang0410/AMBER.
"""

import argparse
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TypeGuard

from hkd_core.common.errors import UserError
from hkd_core.evaluation.identify import indexed
from hkd_core.evaluation.records import QUESTION_ID, Record, read_records, reply_of
from hkd_core.evaluation.rows import decoded, read_bytes, read_value, shown
from hkd_core.evaluation.wordnet import find_dictionary

MODEL = "en_core_web_lg"
SIMILAR = 0.8  # similarity above which two words are one thing
ID = ("id", *QUESTION_ID)
EXAMPLE = "--annotations annotations.json --answers A.json --relation relation.json --safe-words safe_words.txt"
Nouns = Callable[[str], list[str]]
Similarity = Callable[[str, str], float]


@dataclass(frozen=True)
class Words:
    """AMBER's lists. `relation`: a thing -> words associated with it; `safe`: words that are never wrong."""

    relation: Mapping[str, Sequence[str]]
    safe: Collection[str]

    @cached_property
    def listed(self) -> set[str]:
        """The nouns that count."""
        return set(self.relation) | {word for words in self.relation.values() for word in words}


@dataclass(frozen=True)
class Scene:
    """What is in a picture (`truth`) and what people expect there in vain (`hallu`), as AMBER annotates it."""

    truth: Sequence[str]
    hallu: Sequence[str]


def candidates(things: Sequence[str], words: Words) -> list[tuple[str, int]]:
    """(word, place of its thing) in the order in which they are tried: associated words first, then the things themselves."""
    associated = [(word, place) for place, thing in enumerate(things) for word in words.relation.get(thing, ())]
    return associated + [(thing, place) for place, thing in enumerate(things)]


def named(noun: str, options: Sequence[tuple[str, int]]) -> int | None:
    """The place of the thing that this noun is exactly, or None."""
    return next((place for word, place in options if word == noun), None)


def resembled(noun: str, options: Sequence[tuple[str, int]], similarity: Similarity) -> int | None:
    """The place of the first thing that this noun resembles, or None."""
    return next((place for word, place in options if similarity(noun, word) > SIMILAR), None)


def description(nouns: Sequence[str], scene: Scene, words: Words, similarity: Similarity) -> dict:
    """Counts of one description: nouns that count, the wrong ones, and the places of things there and expected ones that are named.

    As published, a noun that is right by resemblance may still name an expected thing, and a safe word names nothing.
    """
    there, expected = candidates(scene.truth, words), candidates(scene.hallu, words)
    counted = [noun for noun in nouns if noun in words.listed]
    wrong, covered, dreamt = [], set(), set()
    for noun in counted:
        if noun in words.safe:
            continue
        place = named(noun, there)
        if place is None:
            dreamt |= {named(noun, expected), resembled(noun, expected, similarity)}
            place = resembled(noun, there, similarity)
        if place is None:
            wrong.append(noun)
        covered.add(place)
    return {"nouns": counted, "hallucinated": wrong, "covered": covered - {None}, "dreamt": dreamt - {None}}


def evaluate(responses: Sequence[str], scenes: Sequence[Scene], words: Words, nouns: Nouns, similarity: Similarity) -> dict:
    """CHAIR, Cover, Hal and Cog in percent over all descriptions, with the counts of each."""
    rows = [description(nouns(text), scene, words, similarity) for text, scene in zip(responses, scenes, strict=True)]

    def percent(part: float, whole: float) -> float:
        return 100 * part / max(whole, 1)

    return {
        "n": len(rows),
        "chair": percent(sum(len(row["hallucinated"]) for row in rows), sum(len(row["nouns"]) for row in rows)),
        "cover": percent(sum(len(row["covered"]) for row in rows), sum(len(scene.truth) for scene in scenes)),
        "hal": percent(sum(bool(row["hallucinated"]) for row in rows), len(rows)),
        "cog": percent(sum(len(row["dreamt"]) for row in rows), sum(len(scene.hallu) for scene in scenes)),
        "nothing_named": sum(not row["nouns"] for row in rows),
    }


def load_similarity() -> tuple[Similarity, Callable]:
    """spaCy's similarity of two words by its large vectors, and its pipeline. Raises UserError saying how to install them."""
    try:
        import spacy

        pipeline = spacy.load(MODEL)
    except (ImportError, OSError) as error:
        how = f"`pip install spacy` and `python -m spacy download {MODEL}`"
        raise UserError(
            f"AMBER's generative scores need spaCy's model {MODEL} (its small models give other scores): {how}"
        ) from error
    parsed = lru_cache(maxsize=100_000)(pipeline)

    @lru_cache(maxsize=1_000_000)
    def similarity(a: str, b: str) -> float:
        first, second = parsed(a), parsed(b)
        return first.similarity(second) if first.vector_norm and second.vector_norm else 0.0

    return similarity, pipeline


def load_nouns(pipeline: Callable) -> tuple[Nouns, str]:
    """The nouns of a text in WordNet's base forms, and whose tags they are: nltk's as published, else spaCy's."""
    dictionary = find_dictionary()
    try:
        from nltk import pos_tag, word_tokenize

        pos_tag(word_tokenize("A dog."))
    except (ImportError, LookupError):
        return lambda text: [dictionary.lemma(t.text, "n") for t in pipeline(text) if t.tag_.startswith("NN")], "spacy"
    return lambda text: [dictionary.lemma(word, "n") for word, tag in pos_tag(word_tokenize(text)) if tag.startswith("NN")], "nltk"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--annotations", required=True, help="AMBER's {id, type, truth, hallu}; discriminative ones are passed over"
    )
    parser.add_argument("--answers", required=True, help="{id, response}; answers to discriminative questions are passed over")
    parser.add_argument("--relation", required=True, help="AMBER's relation.json: a thing -> its associated words")
    parser.add_argument("--reply", metavar="FIELD", help="the field of the answers that holds the description")
    parser.add_argument("--safe-words", required=True, help="AMBER's safe_words.txt: one word a line")


def run(args: argparse.Namespace) -> dict:
    words = read_words(args.relation, args.safe_words)
    annotations = indexed(read_records(args.annotations), (ID,))
    scenes = read_scenes(args.annotations, annotations)
    answers = indexed(read_records(args.answers), (ID,))
    stray = next((key for key in answers if key not in annotations), None)
    if stray is not None and len(annotations) > len(scenes):  # else other answers may be to discriminative questions
        known = f"expected one of {args.annotations}; does one of the files count from 0?"
        raise answers[stray].fail(f"{answers[stray].name_of(*ID)} {shown(stray)} is no annotation: {known}")
    missing = [key for key in scenes if key not in answers]
    if missing:
        first, record = missing[0], scenes[missing[0]][0]
        of = f"{len(missing)} of {len(scenes)} descriptions"
        raise UserError(
            f"{args.answers}: no answer to {of}, the first to {record.name_of(*ID)} {shown(first)}, annotated at {record.where}"
        )
    unknown = {thing for _, scene in scenes.values() for thing in (*scene.truth, *scene.hallu)} - set(words.relation)
    if unknown:
        raise UserError(f"{args.relation}: expected words for every annotated thing, {shown(min(unknown))} has none")
    responses = [reply_of(answers[key], field=args.reply) for key in scenes]
    similarity, pipeline = load_similarity()
    nouns, tagger = load_nouns(pipeline)
    described = [scene for _, scene in scenes.values()]
    return evaluate(responses, described, words, nouns, similarity) | {"model": MODEL, "tagger": tagger}


def read_words(relation: str, safe: str) -> Words:
    held = read_value(relation)
    if not isinstance(held, dict) or not all(is_names(names) for names in held.values()):
        raise UserError(f"{relation}: expected an object that maps a thing to a list of words")
    return Words(held, frozenset(decoded(safe, read_bytes(safe)).split("\n")) - {""})


def is_names(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def read_scenes(path: str, annotations: Mapping[str, Record]) -> dict[str, tuple[Record, Scene]]:
    """Identifier -> (its row, its scene) of the generative part."""
    found = {
        key: (record, Scene(things(record, "truth"), things(record, "hallu")))
        for key, record in annotations.items()
        if str(record.fields.get("type")).strip().lower() == "generative"
    }
    if not found:
        raise UserError(f'{path}: no annotations of type "generative" in it')
    return found


def things(record: Record, name: str) -> list[str]:
    value = record.get(name)
    if not is_names(value):
        raise record.fail(f'"{name}": expected a list of names, got {shown(value)}')
    return value
