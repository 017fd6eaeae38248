"""MME, AMBER, HallusionBench, the challenge, comparisons, CHAIR: the right number from any file, or a line that says why not."""

import json
import random
from itertools import product

import pandas
import pytest

from hkd_core.evaluation import challenge, mme
from hkd_core.evaluation.__main__ import main
from hkd_core.evaluation.replies import Options, yes_no


@pytest.fixture
def say(tmp_path, capsys):
    """Runs a command on files given as rows, values or texts; returns (exit code, result or None, stderr)."""

    def run(command, *arguments, **files):
        options = []
        for name, content in files.items():
            many = content if isinstance(content, tuple) else (content,)
            options.append(f"--{name}")
            for number, held in enumerate(many):
                path = tmp_path / f"{name}{number}.json"
                path.write_text(held if isinstance(held, str) else json.dumps(held), encoding="utf-8")
                options.append(str(path))
        code = main([command, *options, *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return run


def refused(answer, *expected):
    code, found, err = answer
    return code == 2 and found is None and err.count("\n") == 1 and all(part in err for part in expected)


# MME


def mme_folder(folder, tasks, line="{image}.jpg\tIs it {k}?\t{truth}\t{said}\n", **said):
    for name in tasks:
        items = [(k, "Yes" if k % 2 else "No") for k in range(4)]
        text = "".join(line.format(image=k // 2, k=k, truth=truth, said=said.get(name, truth)) for k, truth in items)
        (folder / f"{name}.txt").write_text(text)


def test_mmes_three_totals_and_what_never_looks(tmp_path, say):
    mme_folder(tmp_path, (*mme.PERCEPTION, *mme.COGNITION), color="Yes", scene="I cannot tell")
    _, found, err = say("mme", "--answers", tmp_path)
    assert (found["total"], found["hallucination"]) == (650, 650)  # color: half the questions, no picture
    assert (found["perception"], found["cognition"]) == (9 * 200 - 150, 800)
    assert found["degenerate"]["all_yes"]["perception"] == found["degenerate"]["all_no"]["perception"] == 500
    assert found["unread"]["scene"] == found["unread"]["total"] == 4 and "4 of 56 answers are unread" in err


def test_subtasks_may_be_missing_and_are_named(tmp_path, say):
    mme_folder(tmp_path, (*mme.SUBTASKS, "OCR"))
    _, found, _ = say("mme", "--answers", tmp_path)
    assert (found["total"], found["perception"], found["cognition"]) == (800, None, None) and found["OCR"]["score"] == 200
    (tmp_path / "count.txt").unlink()
    code, found, err = say("mme", "--answers", tmp_path)
    assert code == 0 and found["total"] is None and found["OCR"]["score"] == 200 and "no answers to count" in err
    assert "count" in found["missing"] and "OCR" not in found["missing"]
    for path in tmp_path.glob("*.txt"):
        path.unlink()
    assert refused(say("mme", "--answers", tmp_path), "none of MME's subtasks")


@pytest.mark.parametrize("inner", ["{name}", "MME_Benchmark/{name}/questions_answers_YN"])
def test_mmes_folders_of_one_file_a_picture(inner, tmp_path, say):
    for name, picture in product(mme.SUBTASKS, "ab"):
        folder = tmp_path / inner.format(name=name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{picture}.txt").write_text(f"Is it a?\tYes\tYes\r\nIs it b?\tNo\t{'no' if picture == 'a' else 'yes'}\r\n")
    _, found, _ = say("mme", "--answers", tmp_path)
    assert found["count"] == {"n_images": 2, "acc": 75, "acc_plus": 50, "score": 125} and found["total"] == 500


def test_mme_from_lmms_evals_log_and_vlmevalkits_table(tmp_path, say):
    items = [(name, k, "Yes" if k % 2 else "No") for name in mme.SUBTASKS for k in range(4)]
    log = [
        {
            "doc_id": n,
            "doc": {"question_id": f"{name}/{k // 2}.png", "question": f"Q{k}", "answer": truth, "category": name},
            "filtered_resps": [truth],
        }
        for n, (name, k, truth) in enumerate(items)
    ]
    (tmp_path / "log.jsonl").write_text("\n".join(map(json.dumps, log)))
    table = [
        {
            "index": n,
            "category": name,
            "image_path": f"{k // 2}.png",
            "question": f"Q{k}",
            "answer": truth,
            "prediction": f"{truth}.",
        }
        for n, (name, k, truth) in enumerate(items)
    ]
    pandas.DataFrame(table).to_csv(tmp_path / "m.tsv", sep="\t", index=False)
    assert [say("mme", "--answers", tmp_path / name)[1]["total"] for name in ("log.jsonl", "m.tsv")] == [800, 800]


MME_BAD = {
    "a question twice": ("a\tQ?\tYes\tYes\na\tq?\tyes\tNo\n", "color.txt:2: this question about", "color.txt:1"),
    "a picture alone": ("a\tQ?\tYes\tYes\n", 'color.txt:1: expected 2 questions about each image, "a" has 1'),
    "a resumed run": ("a\tQ?\tYes\tYes\na\tR?\tNo\tNo\n" * 2, "color.txt:3", "color.txt:1"),
    "no truth": ("a\tQ?\tmaybe\tYes\n", 'color.txt:1: truth must be "Yes" or "No", got "maybe"'),
    "three fields": ("a\tQ?\tYes\n", "color.txt:1: expected image, question, truth and answer between tabs, got 3 fields"),
}


@pytest.mark.parametrize("what", MME_BAD)
def test_mmes_malformed_files_are_named(what, tmp_path, say):
    mme_folder(tmp_path, mme.SUBTASKS)
    (tmp_path / "color.txt").write_text(MME_BAD[what][0])
    assert refused(say("mme", "--answers", tmp_path), *MME_BAD[what][1:])


def test_mmes_own_rule_loses_the_answer_is_no_and_says_so(tmp_path, say):
    mme_folder(tmp_path, mme.SUBTASKS, line="{image}\tQ{k}\t{truth}\tThe answer is {truth}\n")
    _, found, err = say("mme", "--answers", tmp_path)
    assert (found["total"], found["strict_total"], found["unread"]["total"]) == (0, 800, 16) and "unread" in err


# AMBER

KINDS = [
    "generative",
    "discriminative-hallucination",
    "discriminative-attribute-state",
    "discriminative-attribute-number",
    "relation",
]
ANNOTATIONS = [{"id": k, "type": kind, "truth": ["dog"] if k == 1 else "no"} for k, kind in enumerate(KINDS, 1)]


def amber_answers(*numbers):
    return [{"id": k, "response": "No" if k > 1 else "A dog."} for k in numbers]


def test_ambers_generative_answers_are_passed_over(say):
    _, found, err = say("amber", annotations=ANNOTATIONS, answers=amber_answers(1, 2, 3, 4, 5))
    assert (found["n"], found["accuracy"], found["generative_passed_over"], err) == (4, 100, 1, "")


def test_one_dimension_of_ambers_is_scored_alone_but_never_half_of_one(say):
    _, found, err = say("amber", annotations=ANNOTATIONS, answers=amber_answers(3, 4))
    assert (found["n"], found["scored"], found["not_answered"]) == (
        2,
        ["attribute"],
        ["existence", "relation"],
    ) and "attribute alone" in err
    assert refused(say("amber", annotations=ANNOTATIONS, answers=amber_answers(3)), 'no answer to id "4"')
    assert refused(say("amber", annotations=ANNOTATIONS, answers=amber_answers(3, 4, 9)), 'id "9" is no question')
    assert refused(say("amber", annotations=ANNOTATIONS, answers=amber_answers(1)), "generative questions alone")
    assert refused(say("amber", annotations=ANNOTATIONS, answers=amber_answers(2, 2)), 'id "2" occurs twice')


def test_amber_from_vlmevalkits_table(say):
    rows = [
        {"index": k, "category": kind, "question": "Q?", "answer": "No", "prediction": "No"} for k, kind in enumerate(KINDS[1:])
    ]
    assert say("amber", answers=rows)[1]["accuracy"] == 100


# HallusionBench


def item(label, said, *, category="VD", figure=1, question=0, **more):
    ids = {"category": category, "subcategory": "map", "set_id": 0, "figure_id": figure, "question_id": question}
    return ids | {"gt_answer": label, "model_prediction": said} | more


def test_hallusions_own_digits_are_read_as_text_number_or_float(say):
    rows = [
        item("1", "1"),
        item("0", 0, figure=2),
        item("1", 1.0, question=1),
        item(1, "2", category="VS", figure=0),
        item("0", "0.0", question=2),
    ]
    _, found, err = say("hallusion", answers=rows)
    assert (found["aacc"], found["facc"], found["qacc"], found["mean"], found["unparsed"], err) == (100, 100, 100, 100, 0, "")


def test_hallusion_counts_what_it_cannot_read_and_gives_the_mean(say):
    _, found, err = say(
        "hallusion", answers=[item("1", "Hm"), item("0", "No", figure=2), item("1", "The answer is yes.", question=1)]
    )
    assert (
        found["mean"]
        == pytest.approx((found["aacc"] + found["facc"] + found["qacc"]) / 3)
        == pytest.approx((200 / 3 + 50 + 50) / 3)
    )
    assert found["unparsed"] == 1 and "1 of 3 predictions could not be read" in err


def test_hallusion_refuses_an_item_that_occurs_twice(say):
    assert refused(
        say("hallusion", answers=[item("1", "Yes"), item("0", "No", figure=2), item("1", "No")]), "item 3", "twice", "item 1"
    )


@pytest.mark.parametrize(
    ("with_picture", "without", "expected"), [(951, 0, "951 questions with"), (951, 178, "all 1,129"), (950, 1, "neither")]
)
def test_hallusion_says_which_question_set_it_was(with_picture, without, expected, say):
    rows = [item("1", "Yes", question=k) for k in range(with_picture)]
    rows += [item("1", "Yes", category="VS", figure=0, question=k) for k in range(without)]
    assert expected in say("hallusion", answers=rows)[1]["question_set"]


def test_hallusion_from_vlmevalkits_table(say):
    rows = [
        {
            "index": f"hallu_VD_map_0_{figure}_0",
            "category": "VD",
            "l2-category": "VD-map",
            "question": "Q?",
            "answer": "Yes",
            "prediction": said,
        }
        for figure, said in ((1, "Yes"), (2, "No"))
    ]
    _, found, _ = say("hallusion", answers=rows)
    assert (found["aacc"], found["facc"], found["qacc"]) == (50, 50, 0)


# The challenge and comparisons

LETTERS = {"A": ["cat"], "B": ["dog"], "C": ["No hallucination"]}
READ = {
    "B": "B", "B.": "B", "(B)": "B", "b": "B", "**B**": "B", "B: dog": "B", "B) a dog": "B", "Option B": "B", "Answer: (B)": "B",
    "The answer is B.": "B", "dog": "B", "No hallucination.": "C", "A: cat": "A", "Dog, surely": "B", "B. because C is wrong": "B",
    "A. cat\nB. dog": None, "(B) dog (A) cat": None, "B. dog\nC) neither": None, "B. dog\nB. dog": "B", "A cat on a mat": None, "A or B": None, "A, B": None, "D": None, "": None, "cat and dog": None, "A. dog": None, "狗": None,
}  # fmt: skip


@pytest.mark.parametrize(("text", "label"), READ.items())
def test_a_lettered_answer_is_read_with_its_marks(text, label):
    assert Options("ABC", LETTERS).read(text) == label


SENTENCES = {
    "The answer is no": "no", "Answer: **Yes**": "yes", "I see none. So the answer is no.": "no", "Yes!": "yes",
    "No. The answer is yes": None, "Yes or no": None, "The answer is yes or no": None, "I cannot answer. No idea": None, "": None,
}  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), SENTENCES.items())
def test_yes_and_no_in_sentences(text, expected):
    assert yes_no(text) == expected


def test_challenge_and_compare_read_marks_alike_and_count_the_unparsed(say):
    labels = ["B", "C", "A", "B"]
    texts = ["B.", "(C)", "A: cat", "either"]
    rows = [
        {"id": k, "task": "1", "label": label, "answer": text} for k, (label, text) in enumerate(zip(labels, texts, strict=True))
    ]
    _, found, _ = say("challenge", answers=rows)
    assert (found["accuracy"], found["unparsed"]) == (0.75, 1)
    answers = [{"question_id": k, "text": text} for k, text in enumerate(texts)]
    right = [{"question_id": k, "label": label} for k, label in enumerate(labels)]
    _, found, _ = say("compare", a=answers, b=answers, labels=right)
    assert (found["accuracy_a"], found["unparsed_a"], found["difference"]) == (0.75, 1, 0)


def test_labels_that_differ_in_case_are_told_apart_within_and_across_tasks(say):
    for tasks in (("1", "2"), ("1", "1")):
        rows = [{"id": k, "task": tasks[k % 2], "label": "Aa"[k % 2], "answer": "Aa"[k % 2]} for k in range(4)]
        _, found, _ = say("challenge", answers=rows)
        assert (found["accuracy"], found["macro_f1"], found["unparsed"]) == (1, 1, 0)


def test_the_challenges_published_records(say):
    choices = [
        {"id": key, "choice": text} for key, text in zip("ABCD", ("True", "False", "Partially True", "Not Verifiable"), strict=True)
    ]
    records = [
        {"metadata": {"image_id": f"{k // 2}.jpg", "claim": f"claim {k}", "correct_choice": right, "choices": choices}}
        for k, right in enumerate("ABCB")
    ]
    said = ["True", "(B)", "The answer is C.", "D"]
    _, found, _ = say("challenge", answers=[record | {"answer": text} for record, text in zip(records, said, strict=True)])
    assert (found["accuracy"], found["unparsed"], list(found["tasks"])) == (0.75, 0, ["task2"])
    answers = [{"answer": text} for text in said]
    assert say("challenge", "--by-order", answers=answers, records=records)[1]["accuracy"] == 0.75
    assert refused(say("challenge", answers=answers, records=records), "--by-order")
    named = [{"image_id": f"{k}.jpg", "answer": text} for k, text in ((2, "A"), (0, "False"))]
    single = [records[0], records[2] | {"metadata": records[2]["metadata"] | {"image_id": "2.jpg", "correct_choice": "A"}}]
    assert say("challenge", answers=named, records=single)[1]["accuracy"] == 0.5
    assert refused(say("challenge", answers=[records[0] | {"answer": "A"}, records[0] | {"answer": "B"}]), "occurs twice")


def test_challenge_counts_equal_counting_by_hand():
    rng = random.Random(0)
    rows = [
        {"id": k, "task": rng.choice("12"), "type": "", "label": rng.choice("ABa"), "answer": rng.choice(["A", "B.", "a", "?"])}
        for k in range(300)
    ]
    found = challenge.evaluate(challenge.with_answers_read(rows))
    said = [{"A": "A", "B.": "B", "a": "a", "?": ""}[row["answer"]] for row in rows]
    for label in "ABa":
        hits = sum(row["label"] == label == word for row, word in zip(rows, said, strict=True))
        assert found["per_label"][label]["precision"] == pytest.approx(hits / said.count(label))
        assert found["per_label"][label]["recall"] == pytest.approx(hits / sum(row["label"] == label for row in rows))
    assert found["unparsed"] == said.count("")


# CHAIR


CAPTIONS = [{"image_id": 1, "caption": "A dog."}, {"image_id": 2, "caption": "Two cats and a bus."}]
INSTANCES = {
    "images": [{"id": 1, "file_name": "COCO_val2014_000000000001.jpg"}, {"id": 2}, {"id": 3}],
    "annotations": [{"image_id": 1, "category_id": 18}, {"image_id": 2, "category_id": 17.0}],
    "categories": [{"id": 18, "name": "dog"}, {"id": 17, "name": "cat"}],
}
PEOPLE = {"images": [], "annotations": [{"image_id": 2, "id": 9, "caption": "A coach with some cats, a bus behind."}]}
TRUTHS = {
    "names": {"1": ["dog"], "2": ["cat"]},
    "names under file names": {"COCO_val2014_000000000001.jpg": ["dog"], "000000000002": ["cat"]},
    "plurals and capitals": {"1": ["Dogs"], "2": ["cats"]},
    "lists": [{"image": 1, "objects": ["dog"]}, {"image": "2.jpg", "objects": ["cat"]}],
    "instances": INSTANCES,
    "results": {"sentences": [{"image_id": 1, "mscoco_gt_words": ["dog"]}, {"image_id": 2, "mscoco_gt_words": ["cat"]}]},
}


@pytest.mark.parametrize("kind", TRUTHS)
@pytest.mark.parametrize("form", ["{}", "COCO_val2014_{:012d}.jpg", "{:012d}"])
def test_what_is_there_is_read_from_cocos_files_and_others_alike(kind, form, say):
    captions = [row | {"image_id": form.format(row["image_id"])} for row in CAPTIONS]
    _, found, _ = say("chair", "--coco", captions=captions, objects=TRUTHS[kind])
    assert (found["chair_s"], found["chair_i"], found["recall"]) == (50, pytest.approx(100 / 3), 100)
    assert found["captions"][1] == {"image_id": captions[1]["image_id"], "generated": ["cat", "bus"], "hallucinated": ["bus"]}


def test_ground_truth_is_the_union_of_instances_and_peoples_captions(say):
    _, found, _ = say("chair", "--coco", captions=CAPTIONS, objects=(INSTANCES, PEOPLE))
    assert (found["chair_s"], found["recall"]) == (0, 100)
    assert refused(say("chair", captions=CAPTIONS, objects=(INSTANCES, PEOPLE)), "people's captions need --coco")


def test_captions_that_name_nothing_are_counted_and_score_nothing(say):
    _, found, err = say("chair", "--coco", captions=[{"image_id": 1, "caption": ""}], objects={"1": ["dog"]})
    assert (found["chair_s"], found["chair_i"], found["named_nothing"]) == (None, None, 1) and "no caption names any object" in err
    _, found, err = say(
        "chair", "--coco", captions=[*CAPTIONS, {"image_id": 3, "caption": "狗"}], objects=TRUTHS["names"] | {"3": []}
    )
    assert (found["named_nothing"], found["chair_i"], err) == (1, pytest.approx(100 / 3), "")


def test_names_beyond_the_vocabulary_are_named_and_do_not_lower_recall(say):
    _, found, err = say("chair", "--coco", captions=CAPTIONS, objects={"1": ["dog", "tree"], "2": ["cat", "tree"]})
    assert (found["recall"], found["unknown_names"]) == (100, {"tree": 2}) and "tree" in err
    assert refused(say("chair", "--coco", captions=CAPTIONS, objects={"1": ["tree"], "2": ["sky"]}), "none of the names")


CHAIR_BAD = {
    "a picture twice": ([*CAPTIONS, CAPTIONS[0] | {"image_id": "1.jpg"}], TRUTHS["names"], ("item 3", "twice", "item 1")),
    "a picture unknown": ([{"image_id": 9, "caption": "A dog."}], TRUTHS["names"], ('image_id "9" is not in',)),
    "category numbers": (CAPTIONS, {"1": [18, 1]}, ('"1": expected names of objects, got 18', "instances")),
    "a name that is null": (CAPTIONS, {"1": [None]}, ("expected names of objects, got null",)),
    "a name without letters": (CAPTIONS, {"1": ["7"]}, ('expected a name with letters a to z, got "7"',)),
    "no list": (CAPTIONS, {"1": "dog"}, ('"1": expected a list of names, got "dog"',)),
    "a key twice": (CAPTIONS, '{"1": ["dog"], "1": ["cat"]}', ('the key "1" occurs twice',)),
    "two names of one picture": (CAPTIONS, {"1": ["dog"], "1.jpg": ["cat"]}, ("are the same picture",)),
    "an unknown category": (CAPTIONS, INSTANCES | {"categories": []}, ('"annotations" item 1: no category has the id 18',)),
    "a list twice": (CAPTIONS, TRUTHS["lists"] * 2, ("item 3", "occurs twice")),
}


@pytest.mark.parametrize("what", CHAIR_BAD)
def test_chairs_malformed_files_are_named(what, say):
    captions, objects, expected = CHAIR_BAD[what]
    assert refused(say("chair", "--coco", captions=captions, objects=objects), *expected)


def test_the_64_token_protocol_drops_the_unfinished_sentence(say):
    captions = [
        {"image_id": 1, "caption": 'A dog. "It runs!" Behind it, a bus and a'},
        {"image_id": 2, "caption": "a cat and a bus"},
    ]
    _, found, _ = say("chair", "--coco", "--drop-unfinished", "--words", 2, 20, captions=captions, objects=TRUTHS["names"])
    assert [row["generated"] for row in found["captions"]] == [["dog"], ["cat", "bus"]]  # nothing finished: it stays whole
    assert [row["chair_s"] for row in found["by_length"]] == [0, 50]
    assert say("chair", "--coco", captions=captions, objects=TRUTHS["names"])[1]["chair_s"] == 100
