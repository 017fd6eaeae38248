"""lmms-eval's sample logs as it writes them today: no "doc", the prompt in "input", the rest in the scores."""

from functools import partial

import pytest
from answer_files import QUESTIONS, RIGHT, lines, run_command


@pytest.fixture
def say(capsys):
    return partial(run_command, capsys)


def current_log(scores, **more):
    """A row of lmms-eval's current sample logs: no "doc", no "resps" where they equal "filtered_resps"."""
    return {"target": "yes", "filtered_resps": ["Yes"], "doc_hash": "x", "input": "Is it red?\nAnswer in one word."} | scores | more


def test_lmms_evals_current_logs_are_read_without_their_doc(tmp_path, say):
    rows = [
        current_log(
            {"pope_accuracy": {"question_id": str(q["question_id"]), "score": 1.0, "prediction": reply.lower(), "ground_truth": q["label"]}},
            doc_id=k, target=q["label"], filtered_resps=[reply], input=q["text"] + "\nAnswer in one word.",
        )
        for k, (q, reply) in enumerate(zip(QUESTIONS, RIGHT, strict=True))
    ]  # fmt: skip
    log, questions = lines(tmp_path / "lm.jsonl", rows), lines(tmp_path / "q.jsonl", QUESTIONS)
    for more in ((), ("--questions", questions)):
        code, found, err = say("pope", "--answers", log, *more)
        assert code == 0 and found["parsers"]["strict"]["f1"] == 1, err
    bare = [{"resps": [row["filtered_resps"]]} | {k: v for k, v in row.items() if k != "filtered_resps"} for row in rows]
    assert say("pope", "--answers", lines(tmp_path / "lm.jsonl", bare))[1]["parsers"]["strict"]["f1"] == 1
    assert say("pope", "--answers", lines(tmp_path / "lm.jsonl", [*rows[1:], rows[0]]), "--questions", questions)[0] == 0
    code, _, err = say(
        "pope", "--answers", lines(tmp_path / "lm.jsonl", [*rows[1:], rows[0]]), "--questions", questions, "--by-order"
    )
    assert code == 2 and "the prompt is" in err


def test_lmms_evals_current_logs_of_mme_and_hallusionbench(tmp_path, say):
    mme = [
        current_log(
            {"mme_perception_score": {"question_id": f"{name}/1.png", "category": name, "score": 1.0}},
            doc_id=2 * n + k,
            input=f"Q{k}?",
        )
        for n, name in enumerate(("existence", "count", "position", "color"))
        for k in range(2)
    ]
    assert say("mme", "--answers", lines(tmp_path / "m", mme))[1]["total"] == 800
    item = {
        "category": "VD",
        "subcategory": "map",
        "set_id": "0",
        "figure_id": "1",
        "question_id": "0",
        "gt_answer": "1",
        "model_prediction": "no",
    }
    found = say("hallusion", "--answers", lines(tmp_path / "h", [current_log({"aAcc": item, "qAcc": item}, doc_id=0, target="1")]))[
        1
    ]
    assert found["aacc"] == 100  # "Yes" of filtered_resps


def test_a_log_of_several_splits_is_known_by_its_doc_id(tmp_path, say):
    rows = [
        current_log({"pope_accuracy": {"question_id": str(k % 2), "ground_truth": "yes"}}, doc_id=k, filtered_resps=[reply])
        for k, reply in enumerate(("Yes", "No", "No", "No"))
    ]
    log = lines(tmp_path / "log", rows)
    code, found, err = say("compare", "--a", log, "--b", log, "--labels", log)
    assert code == 0 and found["accuracy_a"] == 0.25, err
    questions = [
        {"id": str(k), "question_id": str(k % 2), "question": "Is it red?", "answer": "yes", "category": ("random", "popular")[k // 2], "image": "a"}
        for k in range(4)
    ]  # fmt: skip
    code, found, err = say("pope", "--questions", lines(tmp_path / "q", questions), "--answers", log)
    assert code == 0 and [row["parsers"]["strict"]["tp"] for row in found["splits"].values()] == [1, 0], err
