"""The evaluation's command line, on files as other tools write them."""

import json
import random
from collections import Counter

import pytest
from answer_files import lines
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as sk

from hkd_core.evaluation import challenge, pope_scores
from hkd_core.evaluation.__main__ import main
from hkd_core.evaluation.pope_scores import PARSERS, score


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


def refused(answer, *expected):
    code, out, err = answer
    return code == 2 and out == "" and err.count("\n") == 1 and all(part in err for part in expected)


def compared(tmp_path, say, labels, a, b, *more):
    files = [f for k, rows in (("a", a), ("b", b), ("labels", labels)) for f in (f"--{k}", lines(tmp_path / f"{k}.jsonl", rows))]
    return say("compare", *files, *more)


def replied(rows, *said, keep=("question_id",)):
    """The rows' identifiers with a reply each."""
    return [{name: row[name] for name in keep} | {"response": text} for row, text in zip(rows, said, strict=True)]


def test_compare_reads_digits_as_yes_and_no_where_replies_are_words_and_warns_of_the_unparsed(tmp_path, say):
    labels = [{"question_id": k, "label": str(k % 2)} for k in range(4)]
    _, out, err = compared(
        tmp_path, say, labels, replied(labels, "No", "Yes", "No.", "Yes"), replied(labels, "No", "1", "Hm", "No")
    )
    found = json.loads(out)
    assert (found["accuracy_a"], found["accuracy_b"], found["unparsed_a"], found["unparsed_b"]) == (1, 0.5, 0, 1)
    assert "b.jsonl: 1 of 4 replies could not be read" in err and "a.jsonl" not in err
    _, out, err = compared(tmp_path, say, labels, replied(labels, "0", "1", "0", "1"), replied(labels, "0", "0", "0", "0"))
    assert (json.loads(out)["difference"], err) == (0.5, "")


HALLUSION = {"category": "VD", "subcategory": "map", "set_id": "0", "question_id": "0"}
LABEL_FILES = {  # rows with labels, and which of their fields the answers hold
    "identifiers that begin anew in each category": (
        [{"question_id": "1", "id": str(k), "category": name, "answer": "yes"} for k, name in enumerate(("random", "popular"))],
        ("id",),
    ),
    "the same, by category": ([{"question_id": "1", "category": name, "label": "yes"} for name in "ab"], ("question_id", "category")),
    "HallusionBench": ([HALLUSION | {"figure_id": str(k), "gt_answer": "1"} for k in range(2)], (*HALLUSION, "figure_id")),
    "lmms-eval's log": (
        [{"doc_id": k, "doc": {"question_id": "1", "question": "Q?", "answer": "yes", "category": str(k)}, "resps": [["Yes"]]} for k in range(2)],
        ("doc_id",),
    ),
    "MME": ([{"question_id": "a.png", "category": "color", "question": f"Q{k}?", "answer": "Yes"} for k in range(2)], ("question_id", "category", "question")),
    "AMBER": ([{"id": k, "type": kind, "truth": truth} for k, kind, truth in ((1, "generative", ["dog"]), (2, "relation", "yes"), (3, "relation", "yes"))], ("id",)),
    "other names": ([{"idx": 1, "ground_truth": "yes"}, {"idx": 2, "ground_truth": "yes"}], ("idx",)),
}  # fmt: skip


@pytest.mark.parametrize("name", LABEL_FILES)
def test_compare_takes_any_file_of_labels_and_the_identifier_that_tells_them_apart(name, tmp_path, say):
    labels, keep = LABEL_FILES[name]
    said = ["Yes"] * (len(labels) - 1)
    a, b = replied(labels, *said, "Yes", keep=keep), replied(labels, *said, "No", keep=keep)
    code, out, err = compared(tmp_path, say, labels, a[::-1], b)
    found = json.loads(out or "{}")
    assert code == 0 and (found["n"], found["accuracy_a"], found["accuracy_b"]) == (2, 1, 0.5), err


def test_compare_reads_the_challenges_records_with_their_options(tmp_path, say):
    choices = [{"id": key, "choice": text} for key, text in (("A", "True"), ("B", "False"))]
    records = [
        {"metadata": {"image_id": "a.jpg", "claim": f"c{k}", "correct_choice": "AB"[k], "choices": choices}} for k in range(2)
    ]
    a, b = ([{"answer": text} for text in said] for said in (("True", "(B)"), ("A. True", "A. True\nB. False")))
    found = json.loads(compared(tmp_path, say, records, a, b, "--by-order")[1])
    assert (found["accuracy_a"], found["accuracy_b"], found["unparsed_b"]) == (1, 0.5, 1)
    named = [{"image_id": "a.jpg", "claim": f"c{k}", "answer": "True"} for k in range(2)]
    assert json.loads(compared(tmp_path, say, records, named, named)[1])["accuracy_a"] == 0.5
    assert refused(compared(tmp_path, say, records, a, b), "a.jsonl:1", "--by-order")


def test_the_challenges_answers_are_known_by_picture_and_claim(tmp_path, say):
    records = [{"metadata": {"image_id": "a.jpg", "claim": f"c{k}", "correct_choice": "AB"[k]}} for k in range(2)]
    answers = [{"image_id": "a.jpg", "claim": f"c{k}", "answer": "AB"[k]} for k in (1, 0)]
    files = ("--records", lines(tmp_path / "r", records), "--answers")
    assert json.loads(say("challenge", *files, lines(tmp_path / "a", answers))[1])["accuracy"] == 1
    bare = [{"image_id": "a.jpg", "answer": "A"}] * 2
    assert refused(
        say("challenge", *files, lines(tmp_path / "a", bare)), "a:1", '"image_id" "a.jpg" has several items', "--by-order"
    )


def test_a_challenge_row_with_two_replies_is_refused(tmp_path, say):
    row = {"id": 1, "task": "task1", "label": "A", "answer": "A"}
    for text, good in (("B", False), ("A", True), ("Which is it?", True)):
        answer = say("challenge", "--answers", lines(tmp_path / "a", [row | {"text": text}]))
        assert answer[0] == 0 if good else refused(answer, "a:1", '"text" and "answer" could both be the reply', "--reply")


@pytest.mark.parametrize(
    ("ids", "hint"), [([0, 1, 2], "one too low"), (["001", "002", "003"], "leading zeros"), ([2, 3, 4], "one too high")]
)
def test_identifiers_that_are_shifted_or_padded_are_named_with_the_way_out(ids, hint, tmp_path, say):
    questions = [QUESTION | {"question_id": k} for k in (1, 2, 3)]
    answers = [{"question_id": k, "text": "Yes"} for k in ids]
    answer = say("pope", "--questions", lines(tmp_path / "q", questions), "--answers", lines(tmp_path / "a", answers))
    assert refused(answer, "is no question", hint, "--by-order")


def test_pope_build_knows_a_picture_by_its_number_and_names_the_line(tmp_path, say):
    row = {"image": 7, "objects": ["dog", "cup", "car"]}
    twice = lines(tmp_path / "o", [row, row | {"image": "COCO_val2014_000000000007.jpg"}])
    assert refused(say("pope-build", "--objects", twice, "--split", "random"), "o:2", "occurs twice", "o:1")
    assert refused(
        say("pope-build", "--objects", lines(tmp_path / "o", [row]), "--split", "random"), "o:1", "expected 3 known objects"
    )


def test_chair_warns_of_cocos_objects_without_its_synonyms_and_takes_file_names(tmp_path, say):
    captions = lines(tmp_path / "c", [{"image_id": 1, "caption": "A dog."}])
    coco = {"images": [{"id": 1}], "categories": [{"id": 18, "name": "dog"}], "annotations": [{"image_id": 1, "category_id": 18}]}
    (tmp_path / "g").write_text(json.dumps(coco))
    assert "g: COCO's objects without --coco" in say("chair", "--captions", captions, "--objects", tmp_path / "g")[2]
    assert say("chair", "--captions", captions, "--objects", tmp_path / "g", "--coco")[2] == ""
    objects = lines(tmp_path / "g", [{"file_name": "COCO_val2014_000000000001.jpg", "objects": ["dog"]}])
    assert json.loads(say("chair", "--captions", captions, "--objects", objects)[1])["chair_i"] == 0
    objects = lines(tmp_path / "g", [{"image": 1, "objects": ["sky"]}])
    assert refused(say("chair", "--captions", captions, "--objects", objects, "--coco"), "g: none of the names")


@pytest.mark.parametrize("said", ["1", "1.", "1.0", "(1)", "Yes"])
def test_hallusions_digits_may_have_marks(said, tmp_path, say):
    row = HALLUSION | {"figure_id": "1", "gt_answer": "1", "model_prediction": said}
    found = json.loads(say("hallusion", "--answers", lines(tmp_path / "h", [row]))[1])
    assert (found["aacc"], found["unparsed"]) == (100, 0)
