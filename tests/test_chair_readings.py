"""CHAIR's three readings of a caption: the published steps, WordNet's base forms, and what the command says."""

import contextlib
import json
import random
import string
import sys
import zipfile

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from hkd_core.common.errors import UserError
from hkd_core.evaluation import chair_readings, wordnet
from hkd_core.evaluation.__main__ import main
from hkd_core.evaluation.chair import COCO, chair, coco_vocabulary, mentioned, read_synonyms
from hkd_core.evaluation.chair_readings import joined, lemmas, pairs, part_by_rule, published, reading, tags_by_rule, tokens

# A WordNet of a few words, in its own format: one word a line, then what this reader does not need.
KNOWN = {
    "noun": "man men woman vas vase ski skis seat skiing dog bus tie toilet plant people child knife glass glasses meter sandwich",
    "verb": "ski seat tie sandwich bear park pot dog",
    "adj": "hot potted",
    "adv": "well",
}
IRREGULAR = {"noun": "women woman\nmen man\nchildren child\nknives knife", "verb": "born bear\ntied tie", "adj": "", "adv": ""}


@pytest.fixture
def dictionary_folder(tmp_path):
    folder = tmp_path / "wordnet"
    folder.mkdir()
    for name, words in KNOWN.items():
        licence = "  1 This line starts with a space, as WordNet's licence does.\n"
        (folder / f"index.{name}").write_text(licence + "".join(f"{word} x 1 0 1 0 00000001  \n" for word in words.split()))
        (folder / f"{name}.exc").write_text(IRREGULAR[name] + "\n")
    return folder


@pytest.fixture
def dictionary(dictionary_folder):
    return wordnet.read_dictionary(dictionary_folder)


def test_tokens_part_marks_from_words_and_keep_what_nltk_keeps():
    assert tokens('Two dogs. The cat\'s "Stop." sign (red), 3:15!') == (
        ["two", "dogs", ".", "the", "cat", "'s", '"', "stop", ".", '"', "sign", "(", "red", ")", ",", "3:15", "!"]
    )
    assert tokens("a fire-hydrant/bench.cat isn't 5.5 m...") == ["a", "fire-hydrant/bench.cat", "is", "n't", "5.5", "m", "..."]


def test_tokens_equal_nltks_word_by_word_where_it_is_installed():
    word_tokenizer = pytest.importorskip("nltk.tokenize").NLTKWordTokenizer()
    rng = random.Random(0)
    marks = ["", "", "", "", ",", "!", "'s", ";", ")", ":", "...", "?"]
    for _ in range(500):
        text = " ".join(
            f"{rng.choice(('dogs', 'the', 'hot', 'tie', '(', '5'))}{rng.choice(marks)}" for _ in range(rng.randrange(1, 30))
        )
        assert tokens(text) == word_tokenizer.tokenize(text)


def same(words):
    return words


@pytest.mark.parametrize(
    ("caption", "found"),
    [
        ("a hot dog on a wine glass", ["hot dog", "wine glass"]),
        ("a baby elephant and an adult zebra", ["elephant", "zebra"]),
        ("a passenger train on a train track near the home plate", ["train"]),
        ("a baby animal and an adult cub", []),
        ("a bow tie", ["tie"]),
        ("a toilet seat", ["toilet"]),
        ("the seat near the toilet", ["toilet"]),
        ("the seat near the sink", ["chair", "sink"]),
        ("a motor bike , a cheesecake and an iPhone", []),
        ("a motor cycle and a cake", ["motorcycle", "cake"]),
        ("a stove top oven", ["oven", "oven"]),
        ("a dining table", ["dining table"]),
        ("a table and a desk", ["dining table", "dining table"]),
    ],
)
def test_published_steps_with_their_quirks(caption, found):
    assert published(caption, same) == found


def test_pairs_are_joined_from_the_left():
    assert joined(["stop", "stop", "sign", "hot", "hot", "dog"], pairs()) == ["stop", "stop sign", "hot", "hot dog"]


def test_published_names_are_cocos_eighty():
    assert set(chair_readings.objects().values()) == {names[0] for names in read_synonyms(COCO)} and len(read_synonyms(COCO)) == 80


@pytest.mark.parametrize(
    ("word", "part", "base"),
    [
        ("men", "n", "men"),  # both are nouns of three letters: nltk takes the first
        ("women", "n", "woman"),
        ("vases", "n", "vas"),
        ("skis", "n", "ski"),
        ("glasses", "n", "glass"),
        ("skiing", "v", "ski"),
        ("skiing", "n", "skiing"),
        ("seated", "v", "seat"),
        ("seated", "n", "seated"),
        ("born", "v", "bear"),
        ("tied", "v", "tie"),
        ("knives", "n", "knife"),
        ("unheard", "n", "unheard"),
        ("hotter", "a", "hotter"),
    ],
)
def test_base_forms_are_nltks_shortest(dictionary, word, part, base):
    assert dictionary.lemma(word, part) == base


def test_base_forms_equal_nltks_where_it_and_wordnet_are_installed():
    """nltk's own lemmatizer on WordNet's whole vocabulary with endings."""
    lemmatizer = pytest.importorskip("nltk.stem").WordNetLemmatizer()
    try:
        lemmatizer.lemmatize("dogs")
        full = wordnet.find_dictionary()
    except (LookupError, UserError):
        pytest.skip("nltk's WordNet is not installed")
    rng = random.Random(0)
    for word in rng.sample(sorted(full.known["n"] | full.known["v"]), 2000):
        for form in (word, f"{word}s", f"{word}es", f"{word}ed", f"{word}ing"):
            assert [full.lemma(form, part) for part in "nv"] == [lemmatizer.lemmatize(form, part) for part in "nv"]


def test_wordnets_reading_takes_verbs_for_objects_and_loses_men(dictionary):
    def read(caption):
        return published(caption, lambda words: lemmas(words, dictionary, lambda words: tags_by_rule(words, dictionary)))

    assert read("Two people are seated on the left.") == ["person", "chair"]
    assert read("A woman is skiing near a potted plant.") == ["person", "skis", "potted plant"]
    assert read("A day of skiing.") == [] and read("Two men and two women.") == ["person"]
    assert read("A dog tied to a parking meter, and a vase.") == ["dog", "tie", "parking meter", "vase"]
    assert read("Several vases.") == []


def test_noun_or_verb_by_rule(dictionary):
    assert part_by_rule("is", "skiing", "down", dictionary) == "v" and part_by_rule("a", "skiing", "trip", dictionary) == "n"
    assert part_by_rule("possibly", "skiing", ".", dictionary) == "v" and part_by_rule("of", "skiing", ".", dictionary) == "n"
    assert part_by_rule("bear", "born", "there", dictionary) == "v" and part_by_rule("the", "dogs", "are", dictionary) == "n"


def test_our_reading_repairs_what_the_published_ones_lose():
    vocabulary = coco_vocabulary()
    for caption, found in (("a motor bike", ["motorcycle"]), ("an iPhone", ["cell phone"]), ("a bus and two ties", ["bus", "tie"])):
        assert mentioned(caption, vocabulary) == found


def test_patterns_reading_loses_the_bus():
    pytest.importorskip("textblob")
    read = reading("pattern", coco_vocabulary())
    assert read("A bus, two buses and three ties.") == ["bus"] and read("Knives, mice, geese and women.") == (
        ["knife", "mouse", "bird", "person"]
    )


def test_wordnet_is_found_in_a_folder_and_in_nltks_zip(dictionary_folder, tmp_path):
    packed = tmp_path / "wordnet.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        for file in dictionary_folder.iterdir():
            archive.write(file, f"wordnet/{file.name}")
    assert wordnet.find_dictionary([tmp_path / "none", packed]) == wordnet.find_dictionary([dictionary_folder])


@pytest.fixture
def run(tmp_path, capsys):
    (tmp_path / "c.jsonl").write_text(json.dumps({"image_id": 1, "caption": "Two men are seated next to a bus."}) + "\n")
    (tmp_path / "g.json").write_text(json.dumps({"1": ["person", "bus"]}))

    def go(*more):
        code = main(["chair", "--captions", str(tmp_path / "c.jsonl"), "--objects", str(tmp_path / "g.json"), *more])
        out, err = capsys.readouterr()
        return code, json.loads(out) if code == 0 else None, err

    return go


def test_the_output_names_the_reading(run, dictionary_folder, monkeypatch):
    assert run("--coco")[1]["reading"] == "own" and run("--coco")[1]["captions"][0]["generated"] == ["person", "bus"]
    monkeypatch.setenv("WNSEARCHDIR", str(dictionary_folder))
    code, found, _ = run("--reading", "wordnet")
    assert (code, found["reading"], found["tagger"] in ("nltk", "rules")) == (0, "wordnet", True)
    assert found["captions"][0]["generated"] == ["chair", "bus"] and found["chair_s"] == 100 and found["chair_i"] == 50


def test_what_a_reading_lacks_is_said_in_one_line(run, monkeypatch):
    monkeypatch.setattr(wordnet, "places", lambda: iter(()))
    code, _, err = run("--reading", "wordnet")
    assert code == 2 and err.count("\n") == 1 and "apt install wordnet-base" in err and "nltk.downloader wordnet" in err
    monkeypatch.setitem(sys.modules, "textblob.en.inflect", None)
    code, _, err = run("--reading", "pattern")
    assert code == 2 and err.count("\n") == 1 and 'pip install -e ".[chair]"' in err


def test_a_published_reading_takes_no_other_words(run, tmp_path):
    (tmp_path / "s.txt").write_text("dog, puppy\n")
    code, _, err = run("--reading", "pattern", "--synonyms", str(tmp_path / "s.txt"))
    assert code == 2 and "leave out --synonyms" in err
    with pytest.raises(UserError, match='got "spacy"'):
        reading("spacy", coco_vocabulary())


def readers(dictionary):
    vocabulary = coco_vocabulary()
    found = {"own": reading("own", vocabulary)}
    found["wordnet"] = lambda text: published(text, lambda w: lemmas(w, dictionary, lambda w: tags_by_rule(w, dictionary)))
    found["plain"] = lambda text: published(text, same)
    with contextlib.suppress(UserError):
        found["pattern"] = reading("pattern", vocabulary)
    return found


SHORT_DICTIONARY = wordnet.Dictionary(
    {"n": frozenset({"dog", "seat"}), "v": frozenset({"seat", "dog"}), "a": frozenset(), "r": frozenset()},
    {"n": {}, "v": {"born": ["bear"]}, "a": {}, "r": {}},
)
READERS = readers(SHORT_DICTIONARY)
WORDS = st.sampled_from(
    ["dogs", "hot", "seated", "toilet seat", "baby", "bus's", "(cat)", "tie.", "'" * 2000, "…", "\x00", "ﬁre", "犬", "--"]
)


@hypothesis_settings(max_examples=2000)
@given(st.one_of(st.text(max_size=80), st.lists(WORDS, max_size=20).map(" ".join)))
def test_any_text_gives_names_of_coco_in_every_reading(text):
    names = {names[0] for names in read_synonyms(COCO)}
    for read in READERS.values():
        assert set(read(text)) <= names


@pytest.mark.parametrize("name", READERS)
def test_a_caption_of_a_hundred_thousand_words_is_read_like_a_short_one(name):
    """Reading was quadratic in a caption's length once: this one took minutes."""
    once = "a man with a dog and a hot dog near the toilet seat . "
    assert READERS[name](once * 8000) == READERS[name](once) * 8000


def test_names_in_a_picture_that_are_no_object_do_not_count_as_one():
    found = chair([("a", "a train")], {"a": ["train", "train track", "zeppelin"]}, coco_vocabulary())
    assert found["captions"][0]["there"] == 2 and found["recall"] == 50


def test_letters_alone_are_words():
    assert all(mentioned(mark, coco_vocabulary()) == [] for mark in string.punctuation)
