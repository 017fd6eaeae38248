"""The published CHAIR on thousands of captions: a plain re-implementation by hand against `--reading pattern` and `--reading wordnet`."""

import json
import random
import re

import pytest
from answer_files import lines, run_command

from hkd_core.common.errors import UserError
from hkd_core.evaluation import chair_readings, wordnet
from hkd_core.evaluation.chair import COCO

SETS = [[name.strip() for name in line.split(",")] for line in COCO.read_text().splitlines() if line.strip()]
QUIRKS = {"motor bike": " motor bike", "cheesecake": " cheesecake", "iphone": "iPhone"}  # as the published list spells them
NAMES = {QUIRKS.get(name.lower(), name): names[0] for names in SETS for name in names}
ANIMALS = ["bird", "cat", "dog", "horse", "sheep", "cow", "elephant", "bear", "zebra", "giraffe", "animal", "cub"]
TWO_WORDS = [
    *(
        "motor bike",
        "motor cycle",
        "air plane",
        "suit case",
        "stop sign",
        "stop light",
        "street light",
        "fire hydrant",
        "sports ball",
    ),
    *(
        "traffic light",
        "traffic signal",
        "parking meter",
        "baseball bat",
        "baseball glove",
        "tennis racket",
        "wine glass",
        "hot dog",
    ),
    *("cell phone", "mobile phone", "teddy bear", "hair drier", "potted plant", "laptop computer", "home plate", "train track"),
]
JOINED = {name: name for name in TWO_WORDS} | {f"{age} {animal}": animal for age in ("baby", "adult") for animal in ANIMALS}
JOINED |= {f"passenger {name}": name for name in ("jet", "train")}
JOINED |= {"bow tie": "tie", "toilet seat": "toilet", "wine glas": "wine glass"}
PLURALS = {"person": "people", "man": "men", "woman": "women", "child": "children", "knife": "knives", "mouse": "mice"}
PLURALS |= {"goose": "geese", "calf": "calves", "sheep": "sheep", "bus": "buses", "policeman": "policemen", "skis": "skis"}
# Words with "_" are verbs; 0 to 2 stand for things, 0s for several of them.
TEMPLATES = """A 0 and a 1 on the 2.|Two 0s, some 1s and a 2!|The 0's 1 (near the 2s); a toilet|People are seated_ beside a 0, 1 and 2s.
A man is skiing_ past the 0.|a dog tied_ to a 0 , a cat parked_ by the 1...|an adult 0 and a baby 1|"0s": a passenger 1|the seat of a 0 near the 1
A large red 0/1 and a hot 2|0s 1s 2s|A 0 in front of a home plate. Another 0 on the train track|the stove top oven, the bow tie and the wine glasses of 0s
A motor bike, a cheesecake and an iPhone next to the 0|A woman is seated_ with her 0 while a child is skiing_ by the 1s|Baby. Adult cub, 0s"""


def plural(name):
    head, _, last = name.rpartition(" ")
    if last not in PLURALS:
        many = (
            last[:-1] + "ies"
            if re.search(r"[^aeiou]y$", last)
            else f"{last}es"
            if re.search(r"(?:s|x|z|ch|sh)$", last)
            else f"{last}s"
        )
    return f"{head} {PLURALS.get(last) or many}".strip()


def captions(count):
    """[(text, verbs in it)] from templates and the words of COCO's objects, singular and plural, and words that are none."""
    rng = random.Random(0)
    things = [name for names in SETS for name in names] + TWO_WORDS + ["tree", "sky", "cub", "animal", "track", "plate", "glass"]
    found = []
    for _ in range(count):
        chosen = [rng.choice(things) for _ in range(3)]
        text = rng.choice(TEMPLATES.replace("\n", "|").split("|"))
        text = re.sub(r"([012])(s?)\b", lambda m, of=chosen: plural(of[int(m[1])]) if m[2] else of[int(m[1])], text)
        found.append((text.replace("_", ""), set(re.findall(r"\w+(?=_)", text))))
    return found


def split_words(text):
    """Words and marks of the templates' texts: hyphens and slashes stay inside words, a possessive stands alone."""
    return re.findall(r"'s\b|[\w/-]+(?:\.(?=\w)[\w/-]+)*|\.\.\.|[^\w\s]", text.lower())


def objects_in(text, base):
    """The published steps, as text: base forms, pairs from the left, no "seat" beside a toilet, names of the list."""
    left, words = [base(word) for word in split_words(text)], []
    while left:
        pair = " ".join(left[:2])
        words.append(JOINED.get(pair, left[0]))
        left = left[1 + (pair in JOINED) :]
    return [NAMES[word] for word in words if word in NAMES and not (word == "seat" and "toilet" in words)]


DETACHED = {
    "n": [("s", ""), ("ses", "s"), ("xes", "x"), ("zes", "z"), ("ches", "ch"), ("shes", "sh"), ("men", "man"), ("ies", "y")],
    "v": [("s", ""), ("ies", "y"), ("es", "e"), ("es", ""), ("ed", "e"), ("ed", ""), ("ing", "e"), ("ing", "")],
}


def morphy(word, part, known, irregular):
    """WordNet's base form, the shortest as nltk has it. Source: WordNet's manual, morphy(7)."""
    if word in irregular[part]:
        forms = [word, *irregular[part][word]]
    else:
        forms = [word, *(word.removesuffix(end) + more for end, more in DETACHED[part] if word.endswith(end))]
    return min((form for form in forms if form in known[part]), key=len, default=word)


def score(texts, truths, read):
    """CHAIR_s, CHAIR_i and recall in percent, by counting."""
    named = [read(text) for text in texts]
    wrong = [[name for name in names if name not in truth] for names, truth in zip(named, truths, strict=True)]
    found = sum(len(set(names) & truth) for names, truth in zip(named, truths, strict=True))
    return (
        100 * sum(map(bool, wrong)) / len(texts),
        100 * sum(map(len, wrong)) / sum(map(len, named)),
        100 * found / sum(map(len, truths)),
    )


@pytest.fixture
def dictionary(tmp_path, monkeypatch):
    """WordNet where it is installed, else one of the templates' words; our rules tell its verbs."""
    monkeypatch.setattr(chair_readings, "load_tagger", lambda: None)
    try:
        return wordnet.find_dictionary()
    except UserError:
        nouns = {word for name in [*NAMES, *TWO_WORDS, "vas", "people", "glass"] for word in name.lower().split()}
        known = {"noun": nouns, "verb": {"seat", "ski", "tie", "park"}, "adj": set(), "adv": set()}
        for name, words in known.items():
            (tmp_path / f"index.{name}").write_text("".join(f"{word} x 1 0\n" for word in sorted(words)))
            odd = {"noun": "".join(f"{many} {one}\n" for one, many in PLURALS.items()), "verb": "tied tie\n"}.get(name, "")
            (tmp_path / f"{name}.exc").write_text(odd)
        monkeypatch.setenv("WNSEARCHDIR", str(tmp_path))
        return wordnet.find_dictionary()


@pytest.mark.parametrize("reading", ["pattern", "wordnet"])
def test_published_scores_of_three_thousand_captions_to_the_digit(reading, tmp_path, capsys, dictionary):
    made = captions(3000)
    if reading == "pattern":
        singular = pytest.importorskip("textblob.en.inflect").singularize
        base = {word: singular(word) for text, _ in made for word in split_words(text)}.get
        read = {text: objects_in(text, base) for text, _ in made}
    else:
        known, odd = dictionary.known, dictionary.irregular
        read = {t: objects_in(t, lambda w, verbs=v: morphy(w, "v" if w in verbs else "n", known, odd)) for t, v in made}
    texts = [text for text, _ in made]
    people, boxes = texts[1:] + texts[:1], [random.Random(k).sample(range(80), 2) for k in range(3000)]
    truths = [{*read[human], *(SETS[k][0] for k in box)} for human, box in zip(people, boxes, strict=True)]
    images = [{"id": k} for k in range(3000)]
    instances = {
        "images": images,
        "categories": [{"id": k, "name": names[0]} for k, names in enumerate(SETS)],
        "annotations": [{"image_id": k, "category_id": n} for k, box in enumerate(boxes) for n in box],
    }
    by_people = {"images": images, "annotations": [{"image_id": k, "caption": text} for k, text in enumerate(people)]}
    for name, held in (("instances", instances), ("captions", by_people)):
        (tmp_path / f"{name}.json").write_text(json.dumps(held))
    given = lines(tmp_path / "c.jsonl", [{"image_id": k, "caption": text} for k, text in enumerate(texts)])
    objects = (tmp_path / "instances.json", tmp_path / "captions.json")
    code, found, err = run_command(capsys, "chair", "--captions", given, "--objects", *objects, "--reading", reading)
    assert code == 0, err
    assert [row["generated"] for row in found["captions"]] == [read[text] for text in texts]
    assert (found["chair_s"], found["chair_i"], found["recall"]) == pytest.approx(score(texts, truths, read.get), abs=1e-9)
