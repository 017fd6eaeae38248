"""COCO's CHAIR against a reader written down rule by rule, AMBER and HallusionBench worked by hand."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hkd_core.evaluation.__main__ import main
from hkd_core.evaluation.chair import COCO, by_length, chair, coco_vocabulary, mentioned, read_synonyms, vocabulary_of

SETS = read_synonyms(COCO)
VOCABULARY = coco_vocabulary()
ANIMALS = ["bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub"]


def objects_pair_by_pair(words):
    """The published reader as its paper's code describes it: pairs of words first, then words, synonyms at the end."""
    pairs = {name: name for names in SETS for name in names if name.count(" ") == 1}
    pairs |= {f"{age} {animal}": animal for age in ("baby", "adult") for animal in ANIMALS}
    pairs |= {"passenger jet": "jet", "passenger train": "train", "bow tie": "tie", "toilet seat": "toilet"}
    pairs |= {"home plate": "home plate", "train track": "train track"}
    merged, at = [], 0
    while at < len(words):
        pair = " ".join(words[at : at + 2])
        merged.append(pairs.get(pair, words[at]))
        at += 2 if pair in pairs else 1
    if "toilet" in merged:
        merged = [word for word in merged if word != "seat"]
    meaning = {name: names[0] for names in SETS for name in names}
    return [meaning[word] for word in merged if word in meaning]


WORDS = sorted({word for names in SETS for name in names for word in name.split()} - {"oven", "stove", "top"})
WORDS += [*ANIMALS, "track", "plate", "home", "baby", "adult", "passenger", "toilet", "seat", "a", "on", "the", "with"]


@settings(deadline=None, max_examples=300)
@given(st.lists(st.sampled_from(WORDS), max_size=12))
def test_cocos_objects_are_read_as_the_published_rules_read_them(words):
    assert mentioned(" ".join(words), VOCABULARY) == objects_pair_by_pair(words)


@pytest.mark.parametrize(
    ("caption", "objects"),
    [
        ("Two baby birds near a passenger train.", ["bird", "train"]),
        ("A baby on the train tracks", ["person"]),
        ("The seat of the toilet", ["toilet"]),
        ("Hot dogs and a dog", ["hot dog", "dog"]),
        ("Men with iPhones at dining tables", ["person", "cell phone", "dining table"]),
        ("Glasses of milk, wine glasses", ["wine glass"]),
        ("a stove top oven", ["oven"]),
        ("gentlemen, grandchildren and pocketknives", ["person", "person", "knife"]),
        ("buses, canoes, magpies, ties", ["bus", "boat", "bird", "tie"]),
    ],
)
def test_cocos_special_cases(caption, objects):
    assert mentioned(caption, VOCABULARY) == objects


def test_there_are_eighty_objects_and_no_word_belongs_to_two():
    names = [name for names in SETS for name in names]
    assert len(SETS) == 80 and len(names) == len(set(names))


def test_captions_are_compared_at_equal_length():
    captions = [("a", "a dog and a cat on a car"), ("a", "a dog")]
    short, long = by_length(captions, [2, 20], {"a": ["dog"]}, vocabulary_of(["dog", "cat", "car"]))
    assert (short["chair_i"], short["recall"], short["mean_words"]) == (0, 100, 2)
    whole = chair(captions, {"a": ["dog"]}, vocabulary_of(["dog", "cat", "car"]))
    assert long["chair_i"] == whole["chair_i"] == pytest.approx(50) and long["mean_words"] == whole["mean_words"]


@pytest.fixture
def say(capsys):
    def run(*arguments):
        assert main([str(a) for a in arguments]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def test_chair_with_cocos_vocabulary_from_files(tmp_path, say):
    (tmp_path / "c.jsonl").write_text('{"image_id": 1, "caption": "A man rides a bike past two puppies and a sofa."}\n')
    (tmp_path / "g.json").write_text('{"1": ["person", "bicycle", "cat"]}')
    found = say("chair", "--captions", tmp_path / "c.jsonl", "--objects", tmp_path / "g.json", "--coco", "--words", 5, 100)
    assert found["captions"][0]["hallucinated"] == ["dog", "couch"] and found["recall"] == pytest.approx(100 * 2 / 3)
    assert [row["chair_i"] for row in found["by_length"]] == [0, 50]


def test_ambers_positive_class_is_no(tmp_path, say):
    kinds = ["discriminative-hallucination"] * 2 + ["discriminative-attribute-state", "relation"]
    truths, said = ["no", "no", "yes", "no"], ["No", "Yes", "No", "No, it is not."]
    annotations = [{"id": i, "type": kind, "truth": truth} for i, (kind, truth) in enumerate(zip(kinds, truths, strict=True), 1005)]
    (tmp_path / "annotations.json").write_text(json.dumps([{"id": 1, "type": "generative", "truth": ["dog"]}, *annotations]))
    (tmp_path / "answers.json").write_text(json.dumps([{"id": i, "response": r} for i, r in enumerate(said, 1005)]))
    found = say("amber", "--annotations", tmp_path / "annotations.json", "--answers", tmp_path / "answers.json")
    assert (found["accuracy"], found["precision"], found["recall"]) == (50, pytest.approx(200 / 3), pytest.approx(200 / 3))
    assert found["types"]["existence"]["recall"] == 50 and found["types"]["attribute"]["accuracy"] == 0
    assert found["degenerate"]["all_no"]["f1"] == pytest.approx(100 * 6 / 7) and found["degenerate"]["all_yes"]["f1"] == 0


def test_hallusionbench_asks_for_consistency(tmp_path, say):
    # One set, two questions, asked without a figure (0) and about figure 1; the second is missed about the figure.
    rows = [(0, 0, "1", "I cannot tell."), (1, 0, "1", "Yes."), (0, 1, "0", "No."), (1, 1, "0", "Yes.")]
    items = [
        {
            "category": "VS",
            "subcategory": "map",
            "set_id": "0",
            "figure_id": str(f),
            "question_id": str(q),
            "gt_answer": g,
            "model_prediction": p,
        }
        for f, q, g, p in rows
    ]
    (tmp_path / "h.json").write_text(json.dumps(items))
    found = say("hallusion", "--answers", tmp_path / "h.json")
    assert (found["aacc"], found["qacc"], found["facc"]) == (75, 50, 0) and found["n_figures"] == 1
    assert found["degenerate"]["all_yes"]["aacc"] == 50 and found["parts"]["VS map"]["n"] == 4


def test_an_array_of_anything_but_objects_and_an_unknown_kind_are_named(tmp_path, capsys):
    (tmp_path / "a.json").write_text('[{"id": 1, "response": "Yes"}, 7]')
    (tmp_path / "annotations.json").write_text('[{"id": 1, "type": "smell", "truth": "yes"}]')
    assert main(["hallusion", "--answers", str(tmp_path / "a.json")]) == 2
    assert capsys.readouterr().err.strip() == f"{tmp_path}/a.json: item 2: expected a JSON object, got int"
    assert main(["amber", "--annotations", str(tmp_path / "annotations.json"), "--answers", str(tmp_path / "a.json")]) == 2
    assert 'item 1: "type" must be' in capsys.readouterr().err
