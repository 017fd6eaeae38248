"""AMBER's generative scores, with nouns and similarity given, so that no model is needed."""

import importlib.util
import json
import random
import sys

import pytest

from hkd_core.evaluation import amber_generative
from hkd_core.evaluation.__main__ import main
from hkd_core.evaluation.amber_generative import MODEL, Scene, Words, description, evaluate

RELATION = {"dog": ["puppy", "animal"], "sea": ["ocean", "water"], "cat": ["kitten"], "boat": ["ship"], "sky": []}
WORDS = Words(RELATION, frozenset({"picture", "animal"}))
ALIKE = {frozenset({"ship", "water"}), frozenset({"hound", "dog"})}


def similarity(a, b):
    return 1.0 if a == b or frozenset({a, b}) in ALIKE else 0.1


def nouns(text):
    return text.split()


def test_a_description_worked_by_hand():
    scene = Scene(truth=["dog", "sea"], hallu=["boat", "cat"])
    found = description(nouns("puppy ship kitten sky lamp animal ocean ocean"), scene, WORDS, similarity)
    # "lamp" is in no list. "animal" is safe. "ship" is a boat, expected in vain, but resembles "water" of the sea that is there.
    assert found["nouns"] == ["puppy", "ship", "kitten", "sky", "animal", "ocean", "ocean"]
    assert found["hallucinated"] == ["kitten", "sky"]
    assert found["covered"] == {0, 1} and found["dreamt"] == {0, 1}


def test_scores_are_pooled_over_descriptions():
    scenes = [Scene(["dog", "sea"], ["cat"]), Scene(["sky"], ["boat", "cat"]), Scene(["dog"], [])]
    found = evaluate(["puppy kitten", "sky", "lamp"], scenes, WORDS, nouns, similarity)
    assert found["n"] == 3 and found["chair"] == pytest.approx(100 / 3) and found["hal"] == pytest.approx(100 / 3)
    assert (
        found["cover"] == pytest.approx(100 * 2 / 4) and found["cog"] == pytest.approx(100 * 1 / 3) and found["nothing_named"] == 1
    )


def published(counted, truth, hallu):
    """The published bookkeeping, with its lists of flags at shared places, written out: (wrong, covered, dreamt)."""
    there = [(w, i) for i, t in enumerate(truth) for w in RELATION[t]] + [(t, i) for i, t in enumerate(truth)]
    dream = [(w, i) for i, t in enumerate(hallu) for w in RELATION[t]] + [(t, i) for i, t in enumerate(hallu)]
    flags, dreams, wrong = [0] * len(truth), [0] * len(hallu), 0
    for noun in counted:
        if noun in WORDS.safe:
            continue
        exact = [i for w, i in there if w == noun]
        if exact:
            flags[exact[0]] = 1
            continue
        for match in ([i for w, i in dream if w == noun][:1], [i for w, i in dream if similarity(noun, w) > 0.8][:1]):
            for i in match:
                dreams[i] = 1
        like = [i for w, i in there if similarity(noun, w) > 0.8]
        if like:
            flags[like[0]] = 1
        else:
            wrong += 1
    return wrong, sum(flags), sum(dreams)


def test_counts_equal_the_published_bookkeeping():
    rng = random.Random(0)
    listed = sorted(WORDS.listed | {"picture"})
    for _ in range(2000):
        things = rng.sample(sorted(RELATION), 5)
        cut = rng.randrange(6)
        scene = Scene(things[:cut], things[cut:])
        said = rng.choices([*listed, "lamp"], k=rng.randrange(8))
        found = description(said, scene, WORDS, similarity)
        counted = [noun for noun in said if noun in WORDS.listed]
        expected = published(counted, scene.truth, scene.hallu)
        assert (len(found["hallucinated"]), len(found["covered"]), len(found["dreamt"])) == expected


@pytest.fixture
def files(tmp_path):
    annotations = [
        {"id": 1, "type": "generative", "truth": ["dog"], "hallu": ["cat"]},
        {"id": 2, "type": "discriminative-hallucination", "truth": "no"},
    ]
    (tmp_path / "annotations.json").write_text(json.dumps(annotations))
    (tmp_path / "answers.json").write_text(json.dumps([{"id": 1, "response": "A dog."}, {"id": 2, "response": "No"}]))
    (tmp_path / "relation.json").write_text(json.dumps(RELATION))
    (tmp_path / "safe.txt").write_text("picture\n")
    return tmp_path


@pytest.fixture
def say(files, capsys):
    def run(*more):
        options = {
            "annotations": "annotations.json",
            "answers": "answers.json",
            "relation": "relation.json",
            "safe-words": "safe.txt",
        }
        code = main(["amber-generative", *(x for name, file in options.items() for x in (f"--{name}", str(files / file))), *more])
        out, err = capsys.readouterr()
        return code, err if code else json.loads(out)

    return run


@pytest.mark.skipif(importlib.util.find_spec(MODEL) is not None, reason="spaCy's large model is installed")
def test_without_spacys_model_one_line_says_how_to_get_it(say):
    code, err = say()
    assert code == 2 and err.count("\n") == 1 and f"python -m spacy download {MODEL}" in err


@pytest.mark.parametrize(
    ("file", "content", "says"),
    [
        ("relation.json", '{"dog": "puppy"}', "maps a thing to a list of words"),
        ("relation.json", '{"dog": []}', '"cat" has none'),
        ("answers.json", '[{"id": 2, "response": "No"}]', 'no answer to 1 of 1 descriptions, the first to id "1"'),
        ("answers.json", '[{"id": 0, "response": "A dog."}, {"id": 1, "response": "No"}]', 'id "0" is no annotation'),
        ("answers.json", '[{"id": 1, "response": "A dog.", "output": "A cat."}]', "name the right one with --reply"),
        ("annotations.json", '[{"id": 2, "type": "relation", "truth": "no"}]', 'of type "generative"'),
        ("annotations.json", '[{"id": 1, "type": "generative", "truth": "dog", "hallu": []}]', '"truth": expected a list of names'),
    ],
)
def test_wrong_files_are_one_line(files, say, file, content, says):
    (files / file).write_text(content)
    code, err = say()
    assert code == 2 and err.count("\n") == 1 and says in err


class Token:
    """A word of spaCy's, as far as the command looks at it."""

    def __init__(self, text):
        self.text, self.tag_ = text, "NN" if text.islower() and text.isalpha() else "DT"


def test_the_command_scores_by_the_models_nouns_and_similarity(files, say, monkeypatch):
    """spaCy's pipeline is a stand-in here: words in lower case are nouns, and words are alike as in ALIKE."""
    folder = files / "wordnet"
    folder.mkdir()
    for name in ("noun", "verb", "adj", "adv"):
        (folder / f"index.{name}").write_text("dog n\nkitten n\n" if name == "noun" else "")
        (folder / f"{name}.exc").write_text("")
    monkeypatch.setenv("WNSEARCHDIR", str(folder))
    monkeypatch.setitem(sys.modules, "nltk", None)
    monkeypatch.setattr(amber_generative, "load_similarity", lambda: (similarity, lambda text: map(Token, text.split())))
    (files / "answers.json").write_text(json.dumps([{"id": 1, "response": "Two dogs and The kittens"}]))
    code, found = say()
    assert code == 0
    assert (found["chair"], found["cover"], found["hal"], found["cog"]) == (50, 100, 100, 100)
    assert (found["model"], found["tagger"]) == (MODEL, "spacy")
    (files / "answers.json").write_text(json.dumps([{"id": 1, "response": "A dog", "output": "Two dogs and The kittens"}]))
    assert say("--reply", "output") == (0, found)
