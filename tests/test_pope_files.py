"""POPE's three splits in every layout that circulates; answers without identifiers, in tables of other tools, of other splits."""

import json

import pandas
import pytest

from hkd_core.evaluation.__main__ import main
from hkd_core.evaluation.pope_scores import PARSERS, variant

NAMES = {"random": ("cow", "kite"), "popular": ("person", "car"), "adversarial": ("fork", "bench")}
SUFFIX = "\nAnswer the question using a single word or phrase."


def split(name, start=1):
    """Two pictures: "dog" is in each, the split's two names are not. Labels yes, no, no."""
    rows = []
    for picture in (7, 8):
        for thing, label in (("dog", "yes"), *((absent, "no") for absent in NAMES[name])):
            text = f"Is there a {thing} in the image?"
            rows.append(
                {"question_id": len(rows) + start, "image": f"COCO_val2014_{picture:012d}.jpg", "text": text, "label": label}
            )
    return rows


def replies(name):
    """All right in random; one miss in popular; one false alarm in adversarial."""
    said = ["Yes", "No", "No"] * 2
    if name == "popular":
        said[0] = "No"
    if name == "adversarial":
        said[1] = "Yes"
    return said


EXPECTED = {"random": (2, 0, 4, 0), "popular": (1, 0, 4, 1), "adversarial": (2, 1, 3, 0)}


def counts(scores):
    return tuple(scores["parsers"]["strict"][name] for name in ("tp", "fp", "tn", "fn"))


@pytest.fixture
def score(tmp_path, capsys):
    """Writes files, scores them; returns (exit code, result or None, stderr)."""

    def run(questions, answers, *more):
        def write(files):
            for name, rows in files.items():
                (tmp_path / name).parent.mkdir(exist_ok=True)
                (tmp_path / name).write_text("\n".join(map(json.dumps, rows)))
            return [str(tmp_path / name) for name in files]

        asked = ["--questions", *write(questions)] if questions else []
        code = main(["pope", *asked, "--answers", *write(answers), *more])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return run


LLAVA = {"adversarial": 0, "popular": 10_000_000, "random": 20_000_000}  # how LLaVA numbers its questions


def official():
    return {f"coco_pope_{name}.json": split(name) for name in NAMES}


def llava_answers(*, prompts=True):
    return [
        {"question_id": q["question_id"] + offset, "text": reply} | ({"prompt": q["text"] + SUFFIX} if prompts else {})
        for name, offset in LLAVA.items()
        for q, reply in zip(split(name), replies(name), strict=True)
    ]


def llava_questions():
    return [
        {"question_id": q["question_id"] + offset, "image": q["image"], "text": q["text"] + SUFFIX, "category": name}
        for name, offset in LLAVA.items()
        for q in split(name)
    ]


def apart(name):
    return [{"question_id": q["question_id"], "text": reply} for q, reply in zip(split(name), replies(name), strict=True)]


def one_file():
    """lmms-lab/POPE: identifiers begin anew in every category."""
    return {"pope.jsonl": [q | {"category": name, "id": f"{name} {q['question_id']}"} for name in NAMES for q in split(name)]}


def in_order():
    return {
        "a.jsonl": [{"question": q["text"], "answer": r} for name in NAMES for q, r in zip(split(name), replies(name), strict=True)]
    }


def categories():
    return {"a.jsonl": [row | {"category": name} for name in reversed(NAMES) for row in apart(name)]}


SHORT = {"random": "rand", "popular": "pop", "adversarial": "adv"}


def whole():
    """Rows that hold question, label and reply; identifiers begin anew in every split."""
    return [
        {
            "question_id": q["question_id"],
            "image": q["image"],
            "category": name,
            "question": q["text"],
            "label": q["label"],
            "response": r,
        }
        for name in NAMES
        for q, r in zip(split(name), replies(name), strict=True)
    ]


def numbered(files):
    """The same files with an "id" from 0 over all splits."""
    return {name: [row | {"id": str(k)} for k, row in enumerate(rows)] for name, rows in files.items()}


def by_number():
    return [{"id": str(k), "text": reply} for k, reply in enumerate(reply for name in NAMES for reply in replies(name))]


def sample_log(*, picture=False):
    """lmms-eval's current log: identifiers begin anew in every split, and only the prompt tells the splits."""
    return [
        {
            "doc_id": k,
            "target": q["label"],
            "filtered_resps": [reply],
            "input": q["text"] + SUFFIX,
            "pope_accuracy": {"question_id": q["question_id"], "prediction": reply.lower(), "ground_truth": q["label"]},
        }
        | ({"image": q["image"]} if picture else {})
        for k, (q, reply) in enumerate((q, r) for name in LLAVA for q, r in zip(split(name), replies(name), strict=True))
    ]


def once():
    """Every picture and question answered once, in no order, although two splits ask about the same dog."""
    texts = {(q["image"], q["text"]): q["label"].title() for name in NAMES for q in split(name)}
    return [{"image": image, "prompt": text, "response": reply} for (image, text), reply in sorted(texts.items())]


LAYOUTS = {
    "a file of questions and one of answers for each split": (official(), {f"a_{name}.jsonl": apart(name) for name in NAMES}),
    "answers in another order than questions": (official(), {f"a_{name}.jsonl": apart(name) for name in reversed(NAMES)}),
    "answers named in short": (official(), {f"m_pope_{SHORT[name]}.jsonl": apart(name) for name in reversed(NAMES)}),
    "answers in folders of the splits": (official(), {f"{name}/answers.jsonl": apart(name) for name in reversed(NAMES)}),
    "answers in folders named in short": (official(), {f"pope_{SHORT[name]}/a.jsonl": apart(name) for name in reversed(NAMES)}),
    "an identifier beside one that repeats": (numbered(one_file()), {"a.jsonl": by_number()}),
    "rows that hold all, with categories": (None, {"a.jsonl": whole()}),
    "rows that hold all, without identifiers": (None, {"a.jsonl": [row | {"question_id": None} for row in whole()]}),
    "rows that hold all, a file for each split": (
        None,
        {
            f"samples_pope_{SHORT[name]}.jsonl": [row | {"category": None} for row in whole() if row["category"] == name]
            for name in NAMES
        },
    ),
    "questions under another name": (
        {name: [{"query" if k == "text" else k: v for k, v in row.items()} for row in rows] for name, rows in official().items()},
        {f"a_{name}.jsonl": apart(name) for name in NAMES},
    ),
    "answers named by numbers": (official(), {f"{k}.jsonl": apart(name) for k, name in enumerate(NAMES)}),
    "LLaVA's numbering beside the official files": (official(), {"a.jsonl": llava_answers()}),
    "LLaVA's own list with the label files": (
        {"llava_pope_test.jsonl": llava_questions(), **official()},
        {"a.jsonl": llava_answers(prompts=False)},
    ),
    "one file with a category, answers too": (one_file(), categories()),
    "answers with a category": (official(), categories()),
    "lmms-eval's log beside the official files": (official(), {"a.jsonl": sample_log()}),
    "lmms-eval's log in another order": (official(), {"a.jsonl": sample_log()[::-1]}),
    "answers in order that their prompts confirm": (official(), in_order()),
    "answers by order": (official(), in_order(), "--by-order"),
    "answers by order to one file": (one_file(), in_order(), "--by-order"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_three_splits_are_scored_apart_and_together(layout, score):
    code, found, err = score(*LAYOUTS[layout])
    assert code == 0, err
    assert {name: counts(row) for name, row in found["splits"].items()} == EXPECTED
    assert found["n"] == 18 and counts(found) == tuple(map(sum, zip(*EXPECTED.values(), strict=True)))
    for parser in PARSERS:
        for key in ("accuracy", "precision", "recall", "f1", "yes_ratio"):
            each = [row["parsers"][parser][key] for row in found["splits"].values()]
            assert found["mean"][parser][key] == pytest.approx(sum(each) / 3)


def test_picture_and_question_identify_what_several_splits_ask(score):
    code, found, err = score(official(), {"a.jsonl": once()})
    assert code == 0 and found["n"] == 18 and found["parsers"]["strict"]["accuracy"] == 1, err
    code, found, err = score(official(), {"a.jsonl": once()[1:]})
    assert code == 2 and "--by-order" in err


def test_an_order_is_that_of_the_file_although_its_splits_alternate(score):
    rows = [row for three in zip(*(one_file()["pope.jsonl"][6 * k : 6 * k + 6] for k in range(3)), strict=True) for row in three]
    answers = [{"text": "Yes" if row["label"] == "yes" else "No"} for row in rows]
    code, found, err = score({"pope.jsonl": rows}, {"a.jsonl": answers}, "--by-order")
    assert code == 0 and found["parsers"]["strict"]["accuracy"] == 1, err


def log_rows():
    return [
        {
            "doc_id": k,
            "doc": {
                "question_id": q["question_id"],
                "question": q["text"],
                "answer": q["label"],
                "image_source": q["image"],
                "category": name,
            },
        }
        | {"target": q["label"], "resps": [[reply]], "filtered_resps": [reply]}
        for k, (name, q, reply) in enumerate(
            (name, q, r) for name in NAMES for q, r in zip(split(name), replies(name), strict=True)
        )
    ]


def test_lmms_evals_sample_log_needs_no_questions(score):
    code, found, err = score(None, {"samples.jsonl": log_rows()})
    assert (
        code == 0
        and {name: counts(row) for name, row in found["splits"].items()} == EXPECTED
        and found["provenance"]["images"] == 2
    ), err


def test_lmms_evals_sample_log_beside_the_questions(score):
    code, found, err = score(official(), {"samples.jsonl": log_rows()})
    assert code == 0 and {name: counts(row) for name, row in found["splits"].items()} == EXPECTED, err


def test_vlmevalkits_table_counts_a_question_in_each_of_its_splits(tmp_path, capsys):
    rows = [
        {
            "index": 0,
            "question": "Is there a dog in the image?",
            "answer": "Yes",
            "category": "random,popular",
            "prediction": "Yes",
        },
        {"index": 1, "question": "Is there a cow in the image?", "answer": "No", "category": "random", "prediction": "No."},
        {"index": 2, "question": "Is there a car in the image?", "answer": "No", "category": "popular", "prediction": "Yes"},
    ]
    pandas.DataFrame(rows).to_csv(tmp_path / "model_POPE.tsv", sep="\t", index=False)
    assert main(["pope", "--answers", str(tmp_path / "model_POPE.tsv")]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert {name: counts(row) for name, row in found["splits"].items()} == {"random": (1, 0, 1, 0), "popular": (1, 1, 0, 0)}
    assert "without a picture's name" in err


REFUSED = {
    "numbering without prompts could be any split's": (
        (official(), {"a.jsonl": llava_answers(prompts=False)}),
        "give llava_pope_test.jsonl with the --questions",
    ),
    "LLaVA's list without labels": (
        ({"llava_pope_test.jsonl": llava_questions()}, {"a.jsonl": llava_answers()}),
        'no "label" in it',
    ),
    "answers of another split": (
        ({"coco_pope_popular.json": split("popular")}, {"a.jsonl": [row for row in llava_answers() if row["question_id"] < 1000]}),
        "do the answers belong to another split",
    ),
    "too few for their order": ((official(), {"a.jsonl": in_order()["a.jsonl"][1:]}, "--by-order"), "17 answers to 18 questions"),
    "an order that prompts deny": (
        (official(), {"a.jsonl": [*in_order()["a.jsonl"][1:], in_order()["a.jsonl"][0]]}, "--by-order"),
        "a.jsonl:1: the prompt is",
    ),
    "names of which one tells no split": (
        (official(), {"a_pop.jsonl": apart("popular"), "a_random.jsonl": apart("random"), "b.jsonl": apart("adversarial")}),
        "b.jsonl names none or several; name the split in every file's name, or in none",
    ),
    "names that tell other splits": (
        (
            {f"{name}.json": split(name) for name in ("random", "popular")},
            {f"a_{name}.jsonl": apart(name) for name in ("random", "adversarial")},
        ),
        "their names say random, adversarial",
    ),
    "a row twice in its split": ((None, {"a.jsonl": [*whole(), whole()[0]]}), 'a.jsonl:19: "1" occurs twice, first at'),
    "no identifiers": ((official(), {"a.jsonl": [{"answer": row["answer"]} for row in in_order()["a.jsonl"]]}), "--by-order"),
    "names that tell two splits": (
        ({"coco_pope_random.json": split("random")}, {"a_popular.jsonl": apart("popular")}),
        "a_popular.jsonl: its name says popular, but the questions are random",
    ),
    "answers alone": ((None, {"a.jsonl": apart("random")}), "give the questions with --questions"),
    "a log with a row twice": ((None, {"a.jsonl": [*log_rows(), log_rows()[3]]}), 'a.jsonl:19: "3" occurs twice, first at'),
}


@pytest.mark.parametrize("what", REFUSED)
def test_answers_that_cannot_be_told_apart_are_refused_with_the_way_out(what, score):
    arguments, expected = REFUSED[what]
    code, found, err = score(*arguments)
    assert code == 2 and found is None and expected in err and err.count("\n") == 1, err


def published(name, *, n=3000, old=False, first=310196, stem="COCO_val2014_{:012d}.jpg"):
    """As many questions as a published split, about 500 pictures; old: the first release's spelling."""
    asked = "Is there an umbrella in the imange?" if old else "Is there an umbrella in the image?"
    texts = [asked if k % 6 == 0 else "Is there a dog in the image?" for k in range(n)]
    labels, images = ["yes", "no"] * (n // 2), [stem.format(first + k // 6) for k in range(n)]
    return {name: {"labels": labels, "images": images, "questions": texts, "texts": labels}}


VARIANTS = {
    "today's official files": published("random") | published("popular") | published("adversarial"),
    "VCD's copies": published("random") | published("popular") | published("adversarial", old=True),
    "not told apart": published("adversarial", old=True),
    "first release (LLaVA, OPERA, InternVL): its random split has 2,910": published("random", n=2910)
    | published("popular", old=True),
    "first release's spelling": published("popular", old=True),
    "GQA's pictures": published("random", stem="{}.jpg"),
    "not the 500 pictures of the published files": published("random", first=5),
    "none of the published sets: random 18 questions": published("random", n=18),
}


@pytest.mark.parametrize("expected", VARIANTS)
def test_the_circulating_variant_is_told_as_far_as_size_and_spelling_tell(expected):
    assert expected in variant(VARIANTS[expected])


def test_names_beyond_cocos_are_a_okvqas():
    rows = published("random")
    rows["random"]["questions"][5] = "Is there a skyscraper in the image?"
    assert "A-OKVQA" in variant(rows)
