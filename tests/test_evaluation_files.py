"""Files as other tools write them: every format is read alike, every field is found, what cannot be right is refused."""

import json
from functools import partial

import pandas
import pytest
from answer_files import ASKED, QUESTIONS, RIGHT, lines, run_command

from hkd_core.common.errors import UserError
from hkd_core.evaluation.__main__ import main
from hkd_core.evaluation.records import Record, picture_key, read_records, reply_of
from hkd_core.evaluation.rows import read_rows, read_value

ROWS = [{"question_id": "1", "text": "Yes"}, {"question_id": "2", "text": "No, there is\nnone"}]


@pytest.fixture
def say(capsys):
    return partial(run_command, capsys)


FORMS = {
    "lines": "\n".join(map(json.dumps, ROWS)),
    "lines.jsonl with CRLF and a byte-order mark": "\ufeff" + "\r\n".join(map(json.dumps, ROWS)) + "\r\n",
    "array.json": json.dumps(ROWS),
    "pretty array.json": json.dumps(ROWS, indent=2),
    "pretty objects.json": "\n".join(json.dumps(row, indent=2) for row in ROWS),
    "objects side by side.json": "".join(map(json.dumps, ROWS)),
    "log.json": json.dumps({"args": {}, "logs": ROWS}),
    "table.csv": 'question_id,text\n1,Yes\n2,"No, there is\nnone"\n',
    "table.tsv": 'question_id\ttext\r\n1\tYes\r\n2\t"No, there is\nnone"\r\n',
    "semicolons.csv": '\ufeffquestion_id;text\n1;Yes\n2;"No, there is\nnone"\n',
    "JSON lines.csv": "\n".join(map(json.dumps, ROWS)),
    "JSON array.tsv": json.dumps(ROWS, indent=2),
    "a table.json": 'question_id,text\n1,Yes\n2,"No, there is\nnone"\n',
    "predictions.json": json.dumps({"predictions": ROWS}),
    "outputs.json": json.dumps({"outputs": ROWS}),
    "pandas' index": ',question_id,text\n0,1,Yes\n1,2,"No, there is\nnone"\n',
    "pandas' index.txt": '""\tquestion_id\ttext\n0\t1\tYes\n1\t2\t"No, there is\nnone"\n',
    "pandas' index.tsv": '\tquestion_id\ttext\n0\t1\tYes\n1\t2\t"No, there is\nnone"\n',
    "no ending": 'question_id,text\n1,Yes\n2,"No, there is\nnone"\n',
}


@pytest.mark.parametrize("name", FORMS)
def test_the_same_rows_are_read_from_every_kind_of_text_file(name, tmp_path):
    (tmp_path / name).write_bytes(FORMS[name].encode())
    assert [fields for _, fields in read_rows(tmp_path / name)] == ROWS


def test_the_same_rows_are_read_from_parquet_without_the_pictures_bytes(tmp_path):
    frame = pandas.DataFrame(ROWS).assign(question_id=[1.0, 2.0], image=[{"bytes": b"x", "path": "a"}] * 2, none=[None, 3.5])
    frame.to_parquet(tmp_path / "a.parquet")
    rows = [fields for _, fields in read_rows(tmp_path / "a.parquet")]
    assert [row["text"] for row in rows] == [row["text"] for row in ROWS] and "image" not in rows[0]
    assert [Record(row, "").key("question_id") for row in rows] == ["1", "2"] and rows[0]["none"] is None


def test_the_same_rows_are_read_from_xlsx_or_the_missing_package_is_named(tmp_path):
    try:
        pandas.DataFrame(ROWS).to_excel(tmp_path / "a.xlsx", index=False)
    except ImportError:
        (tmp_path / "a.xlsx").write_bytes(b"PK\x03\x04")
        with pytest.raises(UserError, match="needs openpyxl"):
            read_rows(tmp_path / "a.xlsx")
    else:
        assert [fields for _, fields in read_rows(tmp_path / "a.xlsx")] == ROWS


BAD_FILES = {
    "empty.jsonl": (b"", "no lines in it"),
    "empty.csv": (b"", "no lines in it"),
    "header.csv": (b"question_id,text\n", "no lines in it"),
    "truncated.jsonl": (b'{"a": 1}\n{"a": ', "truncated.jsonl:2: not JSON"),
    "open.json": (b'[{"a": 1},\n{"a": 2}\n', "open.json:3: not JSON: Expecting ',' delimiter (in the value that starts on line 1)"),
    "number.json": (b"[1]", "number.json: item 1: expected a JSON object, got int"),
    "scalar.jsonl": (b'{"a": 1}\n2\n', "scalar.jsonl:2: expected a JSON object, got int"),
    "deep.json": (b"[" * 100_000, "deep.json:1: JSON nested too deep"),
    "digits.json": (b'{"a": ' + b"9" * 5000 + b"}", "digits.json:1: not JSON: a number of too many digits"),
    "twice.jsonl": (b'{"a": 1}\n{"a": 1, "a": 2}', 'twice.jsonl:2: not JSON: the key "a" occurs twice'),
    "latin.jsonl": (b'{"a": 1}\n{"a": "caf\xe9"}', "latin.jsonl:2: expected UTF-8 text; save the file as UTF-8"),
    "wide.jsonl": ('{"a": 1}'.encode("utf-16"), "wide.jsonl:1: expected UTF-8 text (it looks like UTF-16)"),
    "ragged.csv": (b"a,b\n1,2\n1,2,3\n", "ragged.csv: not a table: Expected 2 fields in line 3, saw 3"),
    "columns.csv": (b"a,a\n1,2\n", 'columns.csv: the column "a" occurs twice'),
    "stray.tsv": (
        b'id\ttext\n1\t"Yes\n2\tNo\n3\tYes" I think\n4\tNo\n',
        "stray.tsv: row 1: a stray quote swallows 2 of the rows after it",
    ),
    "across.tsv": (b'id\ttext\tlabel\n1\t"Yes\tyes\n2\tNo\tno"\n3\tNo\tno\n', "across.tsv: row 1: a stray quote swallows 1"),
    "stray.csv": (b'id,text\n1,"Yes\n2,"No\n3,Yes\n', "stray.csv: row 1: a stray quote swallows 1 of the rows"),
    "packed.jsonl.gz": (b"\x1f\x8b\x08", "packed.jsonl.gz: compressed: gunzip it first"),
    "not.parquet": (b"hello", "not a parquet file"),
    "half.parquet": (b"PAR1hello", "not a parquet file"),
    "old.xls": (b"\xd0\xcf\x11\xe0", "not a .xlsx file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_file_that_cannot_be_read_is_named_with_line_and_reason(name, tmp_path):
    content, expected = BAD_FILES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError) as error:
        read_rows(tmp_path / name)
    assert expected in str(error.value) and str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)


def test_a_reply_of_several_lines_stays_one_cell(tmp_path):
    (tmp_path / "a.csv").write_text('id,text\n1,"Yes\nNo, wait"\n2,"a\tb"\n')
    assert [fields["text"] for _, fields in read_rows(tmp_path / "a.csv")] == ["Yes\nNo, wait", "a\tb"]


def test_one_value_is_one_value(tmp_path):
    (tmp_path / "a.json").write_text("{}\n{}")
    with pytest.raises(UserError, match=r"a\.json:2: expected one JSON value"):
        read_value(tmp_path / "a.json")


def test_identifiers_are_the_same_as_number_float_and_text():
    keys = [Record({"id": value}, "").key("id") for value in (1, 1.0, "1", "1.0", " 1 ")]
    assert set(keys) == {"1"} and Record({"id": "a.1"}, "").key("id") == "a.1"
    for value in (1.5, True, "", [], 1e300, float("inf")):
        with pytest.raises(UserError, match='"id": expected'):
            Record({"id": value}, "").key("id")


@pytest.mark.parametrize(
    "name",
    [
        "COCO_val2014_000000000007.jpg",
        "val2014/COCO_val2014_000000000007.jpg",
        "000000000007.jpg",
        "000000000007",
        "7",
        "7.0",
        " 7.jpg",
    ],
)
def test_a_picture_of_cocos_has_one_name(name):
    assert picture_key(name) == "7"


def test_other_pictures_keep_their_names():
    assert [picture_key(name) for name in ("AMBER_1.jpg", "a/b 1.PNG", "00385794700c832e.jpg", "v1.5_x")] == [
        "AMBER_1",
        "b 1",
        "00385794700c832e",
        "v1.5_x",
    ]


QUESTION = "Is there a dog in the image?"
REPLIES = {
    "text": ({"text": "Yes"}, "Yes"),
    "answer beside the question as text": ({"text": QUESTION, "answer": "No"}, "No"),
    "text beside the question as answer": ({"text": "No", "answer": QUESTION}, "No"),
    "question with the prompt's suffix": (
        {"text": f"{QUESTION}\nAnswer the question using a single word or phrase.", "answer": "No"},
        "No",
    ),
    "another question": ({"text": "Is there a cow?", "answer": "No"}, "No"),
    "prediction beside label": ({"question": QUESTION, "answer": "yes", "prediction": "No"}, "No"),
    "both the same": ({"text": "Yes", "answer": "Yes"}, "Yes"),
    "one empty": ({"text": "", "answer": "Yes"}, "Yes"),
    "an echo": ({"text": f"{QUESTION} Yes, there is."}, f"{QUESTION} Yes, there is."),
    "thoughts": ({"text": "<think>No dog? No.</think>\n\nYes"}, "Yes"),
    "thoughts without their start": ({"text": "no, no</think>Yes"}, "Yes"),
    "thoughts without end": ({"text": "<think>No dog? No"}, ""),
    "wrapped": ({"text": "<think>x</think><answer> Yes </answer>"}, "Yes"),
    "boxed": ({"text": "So \\boxed{Yes}"}, "Yes"),
}


@pytest.mark.parametrize("name", REPLIES)
def test_the_reply_is_found_wherever_it_stands(name):
    fields, expected = REPLIES[name]
    assert reply_of(Record(fields, "a.jsonl:1"), {QUESTION.lower()}) == expected


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"text": "Yes", "answer": "No"}, 'a.jsonl:1: "text" and "answer" could both be the reply'),
        ({"response": "Yes", "prediction": "No"}, '"prediction" and "response" could both be the reply'),
        ({"text": QUESTION}, '"text" repeats the question, and no other field holds a reply'),
        ({"text": None}, 'missing "text", "answer" or "response"'),
        ({"prediction": None, "text": None}, 'missing "text", "answer" or "response" ("prediction" is there, but empty or NaN)'),
        ({"text": 7}, '"text": expected a text, got 7'),
        ({"prediction": ["a", "b"]}, '"prediction": expected a text, got ["a", "b"]'),
    ],
)
def test_a_reply_that_is_not_clear_is_refused(fields, expected):
    with pytest.raises(UserError) as error:
        reply_of(Record(fields, "a.jsonl:1"), {QUESTION.lower()})
    assert expected in str(error.value)


def test_lmms_evals_log_and_the_challenges_records_are_flattened(tmp_path):
    log = {"doc_id": 0, "doc": {"question": "Q?", "answer": "yes"}, "target": "yes", "resps": [["No"]], "filtered_resps": ["no"]}
    (tmp_path / "log.jsonl").write_text(json.dumps(log))
    (record,) = read_records(tmp_path / "log.jsonl")
    assert (record.fields["question"], record.fields["filtered_resps"], reply_of(record)) == ("Q?", "no", "no")
    del log["filtered_resps"]
    (tmp_path / "log.jsonl").write_text(json.dumps(log))
    assert reply_of(read_records(tmp_path / "log.jsonl")[0]) == "No"
    published = {"metadata": {"image_id": "a.jpg", "correct_choice": "C"}, "answer": "C"}
    (tmp_path / "r.json").write_text(json.dumps([published]))
    assert read_records(tmp_path / "r.json")[0].fields == {"image_id": "a.jpg", "correct_choice": "C", "answer": "C"}


# What an answers file may look like beside four questions, and the F1 of the strict rule, or what the refusal says.


def answered(**more):
    """Right answers with further fields: functions of the question."""
    return [
        {"question_id": q["question_id"], "text": reply} | {name: value(q) for name, value in more.items()}
        for q, reply in zip(QUESTIONS, RIGHT, strict=True)
    ]


def shifted(rows, name="question_id"):
    return [row | {name: row[name] % 4 + 1} for row in rows]


PAIRED = {
    "plain": (answered(), None),
    "floats as identifiers": (answered(question_id=lambda q: float(q["question_id"])), None),
    "texts as identifiers": (answered(question_id=lambda q: str(q["question_id"])), None),
    "with prompts in other words": (
        answered(prompt=lambda q: f"Do you see any {ASKED[q['question_id'] - 1]}s here? One word."),
        None,
    ),
    "with pictures by path": (answered(image=lambda q: f"/data/{q['image']}"), None),
    "with pictures under other names": (answered(image=lambda q: f"id{q['question_id']}"), None),
    "shifted, as prompts show": (shifted(answered(prompt=lambda q: q["text"])), "are their identifiers shifted?"),
    "shifted, as pictures show": (shifted(answered(image=lambda q: q["image"])), 'the picture is "b.jpg"'),
    "shifted, as labels show": (shifted(answered(label=lambda q: q["label"])), 'the label is "no"'),
    "another split, as a prompt shows": (
        answered(prompt=lambda q: q["text"].replace("bus", "cow")),
        'a.jsonl:4: the prompt is "Is there a cow in the image?", but question "4"',
    ),
    "one too many": ([*answered(), {"question_id": 5, "text": "No"}], 'a.jsonl:5: question_id "5" is no question'),
    "three splits": ([*answered(), {"question_id": 10_000_001, "text": "No"}], "answers to 2 splits"),
    "twice": ([*answered(), answered()[0]], 'a.jsonl:5: question_id "1" occurs twice, first at'),
    "under another name": ([{"id": row["question_id"], "response": row["text"]} for row in answered()], None),
    "one missing under another name": ([{"id": k, "response": "No"} for k in (1, 2, 3)], 'no answer to question_id "4", asked at'),
}


@pytest.mark.parametrize("name", PAIRED)
def test_answers_are_paired_with_their_questions_or_refused(name, tmp_path, say):
    rows, refusal = PAIRED[name]
    files = ("--questions", lines(tmp_path / "q.jsonl", QUESTIONS), "--answers", lines(tmp_path / "a.jsonl", rows))
    code, found, err = say("pope", *files)
    if refusal:
        assert code == 2 and found is None and refusal in err and err.count("\n") == 1, err
    else:
        assert code == 0 and found["parsers"]["strict"]["f1"] == 1, err


def test_the_commands_end_with_2_and_one_line_for_bad_arguments(say):
    for arguments in (
        ("pope", "--answers", "a", "--seed", "-1"),
        ("pope",),
        ("chair", "--captions", "c", "--objects", "o", "--words", "0"),
        ("nothing",),
        ("pope-build", "--objects", "o", "--split", "random", "--seed", "x"),
    ):
        code, found, err = say(*arguments)
        assert code == 2 and found is None and err.count("\n") == 1 and "--help" in err


# A label is no reply: (command, table, part of the refusal).
OWN = 'no field holds a reply ("answer" is the label); name it with --reply'
LABELLED = {
    "amber": ("index\tquestion\tanswer\tcategory\n0\tIs it red?\tYes\tdiscriminative-attribute-state\n", "row 1: " + OWN),
    "mme": ("category\tquestion_id\tquestion\tanswer\tmodel_output_text\ncolor\ta.png\tIs it red?\tYes\tNo\n", "row 1: " + OWN),
    "hallusion": ("index\tquestion\tanswer\tcategory\tl2-category\nVD_figure_0_1_0\tq?\tNo\tVD\tfigure\n", "row 1: " + OWN),
    "pope": ("index\tquestion\tanswer\tmodel_output_text\n0\tIs it red?\tYes\tNo\n", "give the questions with --questions"),
}


@pytest.mark.parametrize("command", LABELLED)
def test_the_label_of_a_row_is_never_its_reply(command, tmp_path, say):
    table, expected = LABELLED[command]
    (tmp_path / "a.tsv").write_text(table)
    code, found, err = say(command, "--answers", tmp_path / "a.tsv")
    assert code == 2 and found is None and expected in err and err.count("\n") == 1, err


def test_the_reply_of_a_labelled_row_is_the_field_that_is_named(tmp_path, say):
    (tmp_path / "a.tsv").write_text(LABELLED["pope"][0])
    code, found, _ = say("pope", "--answers", tmp_path / "a.tsv", "--reply", "model_output_text")
    assert code == 0 and found["parsers"]["strict"]["accuracy"] == 0


@pytest.mark.parametrize("name", ["outputs", "generated_text", "model_response", "pred_answer", "predicted_answer", "ans"])
def test_usual_names_of_the_reply_win_over_a_label_beside_them(name, tmp_path, say):
    rows = [{"question_id": q["question_id"], "question": q["text"], "answer": q["label"], name: "No"} for q in QUESTIONS]
    code, found, err = say("pope", "--questions", lines(tmp_path / "q", QUESTIONS), "--answers", lines(tmp_path / "a", rows))
    assert code == 0 and found["parsers"]["strict"]["tp"] == 0, err


def test_labels_beside_another_text_and_a_questions_file_are_no_replies(tmp_path, say):
    rows = [{"question_id": q["question_id"], "question": q["text"], "answer": q["label"]} for q in QUESTIONS]
    questions, answers = lines(tmp_path / "q", QUESTIONS), lines(tmp_path / "a", [row | {"caption": "No"} for row in rows])
    for command in (
        ("pope", "--questions", questions, "--answers", answers),
        ("compare", "--a", answers, "--b", answers, "--labels", questions),
    ):
        code, found, err = say(*command)
        assert code == 2 and found is None
        assert '"answer" is the label in every row; name the field of the reply with --reply, perhaps "caption"' in err
    assert say("pope", "--questions", questions, "--answers", answers, "--reply", "answer")[0] == 0
    itself = lines(tmp_path / "i", [row | {"image": f"{k}.jpg"} for k, row in enumerate(rows)])
    assert say("pope", "--questions", itself, "--answers", itself)[0] == 2


def test_a_perfect_model_that_replies_as_the_label_is_spelt_is_scored(tmp_path, say):
    rows = [{"question_id": q["question_id"], "question": q["text"], "answer": q["label"]} for q in QUESTIONS]
    questions = lines(tmp_path / "q", QUESTIONS)
    for answers in (rows, [row | {"answer": row["answer"].capitalize()} for row in rows], [*rows[:3], rows[3] | {"answer": "yes"}]):
        assert say("pope", "--questions", questions, "--answers", lines(tmp_path / "a", answers))[0] == 0
    official = [{"question": row["question"], "answer": row["answer"]} for row in rows]
    code, found, err = say("pope", "--questions", questions, "--answers", lines(tmp_path / "a", official), "--by-order")
    assert code == 0 and found["parsers"]["strict"]["f1"] == 1, err


def test_an_empty_reply_is_not_replaced_by_the_label_beside_it(tmp_path, say):
    rows = [
        {"question_id": q["question_id"], "question": q["text"], "answer": q["label"], "prediction": "No" if k else None}
        for k, q in enumerate(QUESTIONS)
    ]
    answers = lines(tmp_path / "a", rows)
    code, found, err = say("pope", "--questions", lines(tmp_path / "q", QUESTIONS), "--answers", answers)
    assert code == 2 and found is None and 'a:1: "prediction" is empty or NaN' in err
    code, found, err = say("pope", "--answers", answers)
    assert code == 2 and found is None and "a:1: question, label or reply is missing or empty" in err


def test_a_row_that_only_echoes_its_question_is_unparsed_where_others_reply(tmp_path, say):
    rows = answered()
    rows[1]["text"] = QUESTIONS[1]["text"]
    files = ("--questions", lines(tmp_path / "q", QUESTIONS), "--answers", tmp_path / "a")
    lines(tmp_path / "a", rows)
    code, found, err = say("pope", *files)
    assert code == 0 and found["parsers"]["strict"]["unparsed"] == 1, err
    lines(tmp_path / "a", [row | {"text": q["text"]} for row, q in zip(rows, QUESTIONS, strict=True)])
    code, _, err = say("pope", *files)
    assert code == 2 and '"text" repeats the question' in err and "--reply" in err


@pytest.mark.parametrize(
    "name", ["prompt", "input", "instruction", "prompts", "input_text", "target", "gt", "truth", "ground_truth"]
)
def test_an_order_that_a_prompt_or_label_denies_is_refused(name, tmp_path, say):
    prompt = name in ("prompt", "prompts", "input", "instruction", "input_text")
    rows = [{name: q["text"] if prompt else q["label"], "response": "Yes"} for q in QUESTIONS]
    rows = [row | {name: [row[name]]} for row in rows] if name == "prompts" else rows
    files = ("--by-order", "--questions", lines(tmp_path / "q", QUESTIONS), "--answers", tmp_path / "a")
    lines(tmp_path / "a", rows)
    assert say("pope", *files)[0] == 0
    lines(tmp_path / "a", [*rows[1:], rows[0]])
    code, _, err = say("pope", *files)
    assert code == 2 and "a:1: the " + ("prompt" if prompt else "label") in err


def test_an_instruction_that_is_the_same_everywhere_is_no_prompt(tmp_path, say):
    rows = answered(instruction=lambda q: "Look closely and reply.", input=lambda q: "a.jpg")
    files = ("--questions", lines(tmp_path / "q", QUESTIONS), "--answers", lines(tmp_path / "a", rows))
    assert say("pope", *files)[0] == 0


@pytest.mark.parametrize("command", ["pope", "pope-build", "chair", "mme", "amber", "hallusion", "challenge", "compare"])
def test_help_shows_one_line_of_the_input(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0 and "one line of its input:" in capsys.readouterr().out


@pytest.mark.parametrize("reply", ["1", "A", "True", ""])
def test_replies_that_say_neither_yes_nor_no_are_warned_of(reply, tmp_path, say):
    rows = [row | {"text": reply} for row in answered()]
    code, found, err = say("pope", "--questions", lines(tmp_path / "q", QUESTIONS), "--answers", lines(tmp_path / "a", rows))
    assert code == 0 and found["parsers"]["strict"]["unparsed"] == 4 and "4 of 4 replies could not be read as yes or no" in err
