"""The evaluation's command line, on files as other tools write them."""

import json
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from hkd_core.evaluation import challenge, pope_scores
from hkd_core.evaluation.__main__ import main
from hkd_core.evaluation.pope_scores import PARSERS, score


def lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


@pytest.fixture
def say(capsys):
    """Runs a command; returns (exit code, stdout, stderr)."""

    def run(*arguments):
        code = main([str(a) for a in arguments])
        return code, *capsys.readouterr()

    return run


# What each public rule makes of an answer: its label is yes, then no. None: unparsed.
READ = {
    "Yes": {"official": "yes", "opera": "yes", "vcd": "yes", "vlmevalkit": "yes", "lmms_eval": "yes", "strict": "yes"},
    "Yes.": {"official": "yes", "opera": "yes", "vcd": "yes", "vlmevalkit": "yes", "lmms_eval": None, "strict": "yes"},
    "No, there is not.": {"official": "no", "opera": "no", "vlmevalkit": "no", "lmms_eval": None, "strict": "no"},
    "There isn't one": {"official": "yes", "opera": "no", "vlmevalkit": None, "lmms_eval": None, "strict": None},
    "A dog. No cat": {"official": "yes", "opera": "no", "vlmevalkit": "no", "lmms_eval": None, "strict": None},
    "NO": {"official": "yes", "opera": "no", "vlmevalkit": "no", "lmms_eval": "no", "strict": "no"},
    "Yes or no": {"official": "no", "opera": "no", "vlmevalkit": None, "lmms_eval": None, "strict": None},
}


@pytest.mark.parametrize(("text", "expected"), READ.items())
def test_every_public_rule_reads_an_answer_its_own_way(text, expected):
    assert {name: PARSERS[name](text, "yes") for name in expected} == expected


def test_vcds_rule_takes_letters_for_words_wherever_the_label_is_no():
    assert pope_scores.vcd("I know it is there", "no") == "no" and pope_scores.vcd("I know it is there", "yes") == "no"


@given(st.lists(st.tuples(st.text(max_size=12), st.sampled_from(("yes", "no"))), min_size=1, max_size=30))
def test_counts_add_up_under_every_rule_and_whatever_the_text(pairs):
    texts, labels = zip(*pairs, strict=True)
    for name in PARSERS:
        found = score(texts, labels, name)
        assert found["tp"] + found["fp"] + found["tn"] + found["fn"] + found["unparsed"] == len(texts)


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=60))
def test_plain_yes_and_no_score_alike_under_all_rules_and_as_in_scikit_learn(pairs):
    said, labels = (["yes" if x else "no" for x in column] for column in zip(*pairs, strict=True))
    for name in PARSERS:
        answers = said if name == "lmms_eval" else [word.capitalize() for word in said]
        found = score(answers, labels, name)
        assert found["f1"] == pytest.approx(sk.f1_score(labels, said, pos_label="yes", zero_division=0))
        assert found["accuracy"] == pytest.approx(sk.accuracy_score(labels, said))


def test_pope_from_files(tmp_path, say):
    questions = [
        {"question_id": i, "image": f"{i // 6}.jpg", "text": "Is there a dog in the image?", "label": "yes" if i % 2 else "no"}
        for i in range(12)
    ]
    answers = [{"question_id": i, "text": "Yes, there is." if i % 3 else "No."} for i in reversed(range(12))]
    code, out, _ = say(
        "pope", "--questions", lines(tmp_path / "q.json", questions), "--answers", lines(tmp_path / "a.jsonl", answers)
    )
    found = json.loads(out)
    assert code == 0 and found["n"] == 12 and found["provenance"]["split_size"] == 12 and found["provenance"]["imange"] == 0
    strict = found["parsers"]["strict"]
    assert (strict["tp"], strict["fp"], strict["tn"], strict["fn"]) == (4, 4, 2, 2)
    assert strict["f1_low"] <= strict["f1"] <= strict["f1_high"]


def test_pope_warns_of_the_old_split_and_of_the_misspelt_question(tmp_path, say):
    questions = [{"question_id": i, "image": "a", "text": "Is there an dog in the imange?", "label": "no"} for i in range(2910)]
    answers = [{"question_id": i, "text": "No"} for i in range(2910)]
    _, out, err = say(
        "pope", "--questions", lines(tmp_path / "q.json", questions), "--answers", lines(tmp_path / "a.jsonl", answers)
    )
    assert "2,910" in err and "imange" in err and json.loads(out)["provenance"]["imange"] == 2910


def test_questions_are_built_from_object_lists(tmp_path, say):
    rng = random.Random(0)
    names = ["dog", "cup", "orange", "car", "tree", "umbrella", "boat"]
    rows = [{"image": f"{i}.jpg", "objects": rng.sample(names, 3)} for i in range(20)]
    code, out, _ = say("pope-build", "--objects", lines(tmp_path / "o.jsonl", rows), "--split", "popular", "--seed", 1)
    asked = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(asked) == 120 and Counter(q["label"] for q in asked) == {"yes": 60, "no": 60}
    assert all(q["text"].endswith("in the image?") for q in asked) and any("an orange" in q["text"] for q in asked)
    for q in asked:
        there = next(row["objects"] for row in rows if row["image"] == q["image"])
        assert any(f" {name} in" in q["text"] for name in there) == (q["label"] == "yes")


def test_chair_with_synonyms_and_names_of_two_words(tmp_path, say):
    captions = [{"image_id": 1, "caption": "A puppy with a hot dog."}, {"image_id": 2, "caption": "Two automobiles and a cat."}]
    (tmp_path / "g.json").write_text(json.dumps({"1": ["dog", "hot dog"], "2": ["car"]}))
    (tmp_path / "s.txt").write_text("dog, puppy\nhot dog\ncar, automobile\ncat, kitten\n")
    files = (
        "--captions",
        lines(tmp_path / "c.jsonl", captions),
        "--objects",
        tmp_path / "g.json",
        "--synonyms",
        tmp_path / "s.txt",
    )
    found = json.loads(say("chair", *files)[1])
    assert [c["generated"] for c in found["captions"]] == [["dog", "hot dog"], ["car", "cat"]]
    assert (
        found["chair_s"] == 50
        and found["chair_i"] == 25
        and found["recall"] == 100
        and found["captions"][1]["hallucinated"] == ["cat"]
    )


def test_mme_counts_a_picture_only_if_both_its_questions_are_right(tmp_path, say):
    for name in ("existence", "count", "position", "color"):
        (tmp_path / f"{name}.txt").write_text("a.jpg\tq\tYes\tYes, it is\na.jpg\tq\tNo\tNo\nb.jpg\tq\tYes\tno\nb.jpg\tq\tNo\tno\n")
    found = json.loads(say("mme", "--answers", tmp_path)[1])
    assert found["count"] == {"n_images": 2, "acc": 75, "acc_plus": 50, "score": 125} and found["total"] == 500
    assert [found["degenerate"][name]["total"] for name in ("all_yes", "all_no")] == [200, 200] and found["unread"]["total"] == 0


@given(st.lists(st.tuples(*[st.sampled_from(("True", "False", "Partially True"))] * 2), min_size=1, max_size=50))
def test_challenge_scores_agree_with_scikit_learn(pairs):
    labels, answers = zip(*pairs, strict=True)
    found = challenge.label_scores(labels, answers)
    assert found["macro_f1"] == pytest.approx(
        sk.f1_score(labels, answers, labels=sorted(set(labels)), average="macro", zero_division=0)
    )
    assert found["accuracy"] == found["micro_f1"] == pytest.approx(sk.accuracy_score(labels, answers))


def test_challenge_scores_tasks_apart_and_per_type(tmp_path, say):
    rows = [
        {"id": 1, "task": "task1", "label": "A", "answer": "a", "type": "object"},
        {"id": 2, "task": "task1", "label": "B", "answer": "A", "type": "object"},
    ]
    rows.append({"id": 3, "task": "task2", "label": "True", "answer": "true"})
    found = json.loads(say("challenge", "--answers", lines(tmp_path / "a.jsonl", rows))[1])
    assert found["accuracy"] == pytest.approx(2 / 3) and found["tasks"]["task2"]["accuracy"] == 1
    assert found["tasks"]["task1"]["per_type"] == {"object": {"n": 2, "accuracy": 0.5}}


def test_two_models_are_compared_on_the_same_questions(tmp_path, say):
    labels = [{"question_id": i, "label": "yes" if i < 10 else "no", "image": i // 2} for i in range(20)]
    a = [{"question_id": i, "text": "Yes" if i < 10 else "No"} for i in range(20)]
    b = [{"question_id": i, "text": "Yes"} for i in range(20)]
    files = [f for k, rows in (("a", a), ("b", b), ("labels", labels)) for f in (f"--{k}", lines(tmp_path / f"{k}.jsonl", rows))]
    found = json.loads(say("compare", *files)[1])
    assert (found["fixed"], found["broken"], found["difference"]) == (10, 0, 0.5) and found["low"] > 0
    # Ten questions, two a picture: the sign test counts five pictures, McNemar's ten questions.
    assert (found["better"], found["worse"], found["p"]) == (5, 0, pytest.approx(2 * 0.5**5))
    assert found["p_mcnemar"] == pytest.approx(2 * 0.5**10)


QUESTION = {"question_id": 1, "image": "a", "text": "Is there a dog in the image?", "label": "yes"}
BAD = {
    "a label that is none": ([QUESTION | {"label": "maybe"}], [{"question_id": 1, "text": "Yes"}], ["q.jsonl:1", "label", "maybe"]),
    "an answer to no question": (
        [QUESTION],
        [{"question_id": 1, "text": "Yes"}, {"question_id": 2, "text": "No"}],
        ["a.jsonl:2", '"2"'],
    ),
    "a question without answer": (
        [QUESTION, QUESTION | {"question_id": 2}],
        [{"question_id": 1, "text": "Yes"}],
        ["a.jsonl", '"2"', "q.jsonl:2"],
    ),
    "an answer twice": ([QUESTION], [{"question_id": 1, "text": "Yes"}] * 2, ["a.jsonl:2", "twice", "a.jsonl:1"]),
    "no text": ([QUESTION], [{"question_id": 1}], ["a.jsonl:1", "text"]),
}


@pytest.mark.parametrize("what", BAD)
def test_a_malformed_line_is_named_in_one_line_and_the_exit_code_is_2(what, tmp_path, say):
    questions, answers, expected = BAD[what]
    code, out, err = say(
        "pope", "--questions", lines(tmp_path / "q.jsonl", questions), "--answers", lines(tmp_path / "a.jsonl", answers)
    )
    assert code == 2 and out == "" and err.count("\n") == 1 and all(part in err for part in expected), err


def test_a_line_that_is_not_json_and_a_missing_file_are_named(tmp_path, say):
    (tmp_path / "q.jsonl").write_text(json.dumps(QUESTION) + "\n{oops\n")
    code, _, err = say("pope", "--questions", tmp_path / "q.jsonl", "--answers", tmp_path / "none.jsonl")
    assert code == 2 and "q.jsonl:2" in err
    code, _, err = say("chair", "--captions", tmp_path / "none.jsonl", "--objects", tmp_path / "none.json")
    assert code == 2 and "none.json" in err
