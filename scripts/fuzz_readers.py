"""Throw damaged files and odd replies at the evaluation's readers, parsers and commands: a result or a UserError, nothing else.

`python scripts/fuzz_readers.py [--cases 100000] [--only NAME ...] [--seed 0]`. A failure prints the target and case number, which
`--first CASE --cases 1` runs again.
"""

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import fuzzing
import numpy as np
from fuzz_inputs import ODD, WORDS, as_file, damaged, example, phrase, pope_rows, with_noise, yes_no

from hkd_core.common import margins
from hkd_core.common.errors import UserError
from hkd_core.evaluation import (
    amber_generative,
    audit_command,
    audit_files,
    coco,
    commands,
    mme,
    output,
    pope_scores,
    records,
    replies,
    rows,
)
from hkd_core.evaluation import statistics as stats
from hkd_core.evaluation.__main__ import build_parser

HELD: dict[str, bytes] = {}  # the files, under the names that the commands are given


@contextmanager
def files_in_memory() -> Iterator[None]:
    """Commands read HELD; few draws of the bootstrap; no warnings; WordNet and spaCy are three words."""
    drawn, synonyms = stats.drawn_sums, commands.chair.read_synonyms
    with ExitStack() as stack:

        def replace(place: object, name: str, value: object) -> None:
            stack.enter_context(mock.patch.object(place, name, value))

        for module in (rows, coco, mme, amber_generative):
            replace(module, "read_bytes", lambda path: HELD[str(path)])
        for module in (commands, audit_command, audit_files):
            replace(module, "warn", output.one_line)
        replace(commands, "write", lambda text: None)
        replace(commands.chair, "read_synonyms", lambda path: [["dog", "puppy"], ["cat"]] if path == "s.txt" else synonyms(path))
        replace(mme.Path, "is_file", lambda self: str(self) in HELD)
        replace(stats, "drawn_sums", lambda sums, draws, rng: drawn(sums, min(draws, 8), rng))
        replace(margins, "_drawn_aurocs", lambda sides, *more: np.zeros((len(sides), 2)))
        replace(amber_generative, "load_similarity", lambda: (lambda a, b: float(a == b), None))
        replace(amber_generative, "load_nouns", lambda pipeline: (str.split, "none"))
        yield


PARSER = build_parser()


def command(held: dict[str, bytes], *arguments: str) -> None:
    HELD.clear()
    HELD.update(held)
    args = PARSER.parse_args(arguments)
    found = args.run(args)
    if found is not None:
        result, items = found if isinstance(found, tuple) else (found, [])
        json.dumps(result)
        output.table(result)
        for item in items:
            [output.cell(value) for value in item.values()]


def fuzz_rows(rng: random.Random) -> None:
    questions, answers = pope_rows(rng)
    name = rng.choice(("a.json", "a", "a.csv", "a.tsv", "a.txt", "a", "a.xls"))
    for where, fields in rows.rows_of(name, as_file(rng, damaged(rng, rng.choice((questions, answers))))):
        record = records.Record(records.flattened(fields), where)
        for read in (
            lambda r: r.key("question_id"),
            lambda r: r.text("text"),
            lambda r: r.picture(),
            lambda r: records.reply_of(r),
        ):
            try:
                read(record)
            except UserError as error:
                rows.shown(str(error))


def fuzz_noise(rng: random.Random) -> None:
    rows.rows_of(
        rng.choice(("a.json", "a.csv", "a")), bytes(rng.choice(b'{}[]",:\n\t0aE.- \\u\xff\xc3') for _ in range(rng.randrange(60)))
    )


def fuzz_replies(rng: random.Random) -> None:
    text = phrase(rng, 40)
    reply = replies.final_reply(text)
    said = replies.yes_no(reply)
    assert said in ("yes", "no", None)
    labels = [rng.choice(WORDS) for _ in range(rng.randrange(1, 6))]
    options = replies.Options(labels, {labels[0]: [phrase(rng, 4)]})
    assert options.read(reply) in (*labels, None)
    assert options.read(labels[-1].strip()) == labels[-1].strip() or labels[-1].strip() not in labels
    for name, parser in pope_scores.PARSERS.items():
        assert parser(reply, rng.choice(("yes", "no"))) in ("yes", "no", None), name
    assert mme.parse(reply) in ("yes", "no", "other")
    records.picture_key(text)
    coco.finished(text)


def fuzz_pope(rng: random.Random) -> None:
    questions, answers = pope_rows(rng)
    held = {"q": as_file(rng, damaged(rng, questions)), "a": as_file(rng, damaged(rng, answers))}
    more = rng.choice(((), (), ("--by-order",), ("--reply", "text")))
    command(held, "pope", "--questions", "q", "--answers", "a", *more)


def fuzz_pope_splits(rng: random.Random) -> None:
    questions, answers = pope_rows(rng)
    others = [q | {"text": q["text"].replace("in the", "or a cow in the")} for q in questions]
    offset, prompts = rng.choice((0, 10_000_000, 20_000_000)), rng.random() < 0.7
    both = [
        {"question_id": q["question_id"] + offset * (k == 1), "text": yes_no(rng)}
        | ({"prompt": q["text"] + "\nOne word."} if prompts else {})
        for k, asked in enumerate((questions, others))
        for q in asked
    ]
    if rng.random() < 0.3:
        both = [a | {"category": ("random", "popular")[k // len(questions)]} for k, a in enumerate(both)]
    held = {"q_random": as_file(rng, damaged(rng, questions)), "q_popular": as_file(rng, damaged(rng, others))}
    held |= {
        "a": as_file(rng, damaged(rng, both)),
        "b": as_file(rng, damaged(rng, answers)),
        "c": as_file(rng, damaged(rng, answers)),
    }
    held["all"] = as_file(rng, damaged(rng, [{**q, "category": rng.choice(("random", "random,popular"))} for q in questions]))
    asked = rng.choice((("q_random", "q_popular"), ("q_random", "q_popular"), ("all",)))
    chosen = rng.choice((("a",), ("a",), ("b",), ("b", "c"), ("a", "--by-order")))
    command(held, "pope", "--questions", *asked, "--answers", *chosen)


def fuzz_logs(rng: random.Random) -> None:
    questions, _ = pope_rows(rng)
    log = [
        {
            "doc_id": k,
            "doc": {"question": q["text"], "answer": q["label"], "category": "random"},
            "resps": [[yes_no(rng)]],
            "filtered_resps": [yes_no(rng)],
        }
        for k, q in enumerate(questions)
    ]
    held = {"a": as_file(rng, rng.choice((damaged(rng, log), {"logs": damaged(rng, log)})))}
    command(held, "pope", "--answers", "a")


def fuzz_pope_build(rng: random.Random) -> None:
    names = ["dog", "cat", "cup", "car", "bus", "tie", "bed", "cow", "kite", "oven", "1", "", "狗"]
    items = [
        {"image": f"{k}.jpg", "objects": rng.sample(names[: rng.choice((10, 10, 13))], rng.randrange(5))}
        for k in range(rng.randrange(1, 6))
    ]
    command(
        {"o": as_file(rng, damaged(rng, items))},
        "pope-build",
        "--objects",
        "o",
        "--split",
        rng.choice(("random", "popular", "adversarial")),
    )


def fuzz_chair(rng: random.Random) -> None:
    pictures = range(1, rng.randrange(2, 5))
    captions = [
        {
            "image_id": rng.choice((k, float(k), f"COCO_val2014_{k:012d}.jpg")),
            "caption": rng.choice(("A dog. A hot dog", "", "狗", phrase(rng))),
        }
        for k in pictures
    ]
    names = rng.choice((["dog", "cat"], ["dog", "Dogs", "hot dogs"], ["dog", 18], ["狗"], ["tree"]))
    kind = rng.randrange(5)
    if kind == 0:
        truth: object = {str(k): names for k in pictures}
    elif kind == 1:
        truth = {
            "images": damaged(rng, [{"id": k} for k in pictures]),
            "annotations": damaged(rng, [{"image_id": k, "category_id": rng.choice((18, 18.0, 3))} for k in pictures]),
            "categories": damaged(rng, [{"id": 18, "name": "dog"}, {"id": 3, "name": "car"}]),
        }
    elif kind == 2:
        truth = {
            "images": [{"id": k} for k in pictures],
            "annotations": damaged(rng, [{"image_id": k, "caption": "A dog"} for k in pictures]),
        }
    elif kind == 3:
        truth = damaged(rng, [{"image": k, "objects": names} for k in pictures])
    else:
        truth = {"sentences": damaged(rng, [{"image_id": k, "mscoco_gt_words": names} for k in pictures])}
    held = {"c": as_file(rng, damaged(rng, captions)), "g": as_file(rng, truth, whole=True), "s.txt": b"dog, puppy\ncat\n"}
    more = rng.choice((("--coco",), ("--synonyms", "s.txt"), ()))
    command(held, "chair", "--captions", "c", "--objects", "g", *more, *rng.choice(((), ("--drop-unfinished", "--words", "2"))))


def fuzz_mme(rng: random.Random) -> None:
    lines = [f"{k // 2}.jpg\tQ{k}?\t{'Yes' if k % 2 else 'No'}\t{yes_no(rng)}" for k in range(rng.choice((2, 4, 6)))]
    if rng.random() < 0.5:
        held = {"t.txt": with_noise(rng, "\n".join(lines).encode("utf-8", "replace"))}
        HELD.clear()
        HELD.update(held)
        tasks = mme.checked({name: mme.lines_of(mme.Path("t.txt")) for name in mme.SUBTASKS})
        json.dumps(mme.evaluate(tasks))
        return
    command({"m": as_file(rng, damaged(rng, mme_rows(rng)))}, "mme", "--answers", "m")


def mme_rows(rng: random.Random) -> list[dict]:
    return [
        {
            "index": k,
            "category": name,
            "question": f"Q{k}?",
            "image_path": f"{k // 2}.jpg",
            "answer": "Yes" if k % 2 else "No",
            "prediction": yes_no(rng),
        }
        for name in mme.SUBTASKS[: rng.choice((4, 4, 2, 1))]
        for k in range(2)
    ]


def amber_rows(rng: random.Random) -> tuple[list[dict], list[dict]]:
    kinds = ["generative", "discriminative-hallucination", "discriminative-attribute-state", "relation", "discriminative-relation"]
    annotations = [{"id": k, "type": rng.choice(kinds), "truth": rng.choice(("yes", "no"))} for k in range(rng.randrange(1, 7))]
    annotations = [a | {"truth": ["dog"]} if a["type"] == "generative" else a for a in annotations]
    return annotations, [{"id": a["id"], "response": yes_no(rng)} for a in annotations if rng.random() < 0.95]


def fuzz_amber(rng: random.Random) -> None:
    annotations, answers = amber_rows(rng)
    held = {"n": as_file(rng, damaged(rng, annotations)), "a": as_file(rng, damaged(rng, answers))}
    command(held, "amber", "--annotations", "n", "--answers", "a")


def fuzz_hallusion(rng: random.Random) -> None:
    items = [
        {
            "category": rng.choice(("VS", "VD")),
            "subcategory": "map",
            "set_id": "0",
            "figure_id": str(k % 2),
            "question_id": str(k // 2),
        }
        | {"gt_answer": rng.choice(("0", "1", 1)), "model_prediction": rng.choice(("0", 1, "2", 1.0, yes_no(rng)))}
        for k in range(rng.randrange(1, 6))
    ]
    command({"h": as_file(rng, damaged(rng, items))}, "hallusion", "--answers", "h")


def fuzz_challenge(rng: random.Random) -> None:
    def said() -> str:
        return rng.choice(("A", "b.", "(C)", "A: cat", "True", "partially true", phrase(rng)))

    if rng.random() < 0.5:
        labels = rng.choice((["A", "B", "C"], ["True", "False", "Partially True"], ["A", "a"], ["yes", "No"]))
        items = [
            {"id": k, "task": rng.choice("12"), "label": rng.choice(labels), "answer": said()} for k in range(rng.randrange(1, 6))
        ]
        command({"a": as_file(rng, damaged(rng, items))}, "challenge", "--answers", "a")
        return
    choices = [
        {"id": key, "choice": text} for key, text in zip("ABCD", ("True", "False", "Partially True", "Not Verifiable"), strict=True)
    ]
    published = [
        {
            "metadata": {
                "image_id": f"{k // 2}.jpg",
                "claim": f"c{k}",
                "correct_choice": rng.choice("ABCD"),
                "choices": damaged(rng, choices),
            },
            "answer": said(),
        }
        for k in range(rng.randrange(1, 5))
    ]
    answers = [{"image_id": record["metadata"]["image_id"], "answer": said()} for record in published]
    held = {"r": as_file(rng, damaged(rng, published)), "a": as_file(rng, damaged(rng, answers))}
    if rng.random() < 0.5:
        command(held, "challenge", "--answers", "r")
    else:
        command(held, "challenge", "--answers", "a", "--records", "r", *rng.choice(((), ("--by-order",))))


def fuzz_compare(rng: random.Random) -> None:
    labels = [
        {"question_id": k, "label": rng.choice(("yes", "no", "A", "B", "a red cup", 2)), "image": k // 2}
        for k in range(rng.randrange(1, 6))
    ]
    held = {"l": as_file(rng, damaged(rng, labels))}
    for side in "ab":
        answers = [{"question_id": row["question_id"], "text": rng.choice((yes_no(rng), "A.", "a red cup"))} for row in labels]
        held[f"{side}"] = as_file(rng, damaged(rng, answers))
    command(held, "compare", "--a", "a", "--b", "b", "--labels", "l")


def fuzz_audit(rng: random.Random) -> None:
    questions, answers = pope_rows(rng)
    if rng.random() < 0.5:
        answers = [a | {"margin": rng.choice((1.5, -2, 0, "0.5", rng.choice(ODD)))} for a in answers]
    held = {"q": as_file(rng, damaged(rng, questions))}
    held |= {side: as_file(rng, damaged(rng, answers)) for side in "ab"}
    more = rng.choice(((), (), ("--by-order",), ("--margins",), ("--margins",), ("--reply", "text")))
    command(held, "audit", "--questions", "q", "--base", "a", "--method", "b", *more)


def fuzz_audit_splits(rng: random.Random) -> None:
    questions, _ = pope_rows(rng)
    others = [q | {"text": q["text"].replace("in the", "or a cow in the")} for q in questions]
    both = [
        {"question_id": q["question_id"] + 10_000_000 * k, "text": yes_no(rng), "prompt": q["text"]}
        for k, asked in enumerate((questions, others))
        for q in asked
    ]
    held = {"q_random": as_file(rng, damaged(rng, questions)), "q_popular": as_file(rng, damaged(rng, others))}
    held |= {side: as_file(rng, damaged(rng, both)) for side in "ab"}
    command(
        held, "audit", "--questions", "q_random", "q_popular", "--base", "a", "--method", "b", *rng.choice(((), ("--by-order",)))
    )


def fuzz_audit_labels(rng: random.Random) -> None:
    annotations, answers = amber_rows(rng)
    questions = [{"id": a["id"], "image": f"{a['id'] // 2}.jpg", "query": "Is there a dog?"} for a in annotations]
    held = {"q": as_file(rng, damaged(rng, questions)), "n": as_file(rng, damaged(rng, annotations))}
    held |= {side: as_file(rng, damaged(rng, answers)) for side in "ab"}
    command(held, "audit", "--questions", "q", "--labels", "n", "--base", "a", "--method", "b")


def fuzz_audit_mme(rng: random.Random) -> None:
    held = {side: as_file(rng, damaged(rng, mme_rows(rng))) for side in "ab"}
    command(held, "audit", "--base", "a", "--method", "b")


def fuzz_amber_generative(rng: random.Random) -> None:
    things = ["dog", "cat", "tree", "sky"]
    annotations = [
        {"id": k, "type": rng.choice(("generative", "generative", "relation"))}
        | {"truth": rng.sample(things, 2), "hallu": rng.choice((["car"], [], ["dog"]))}
        for k in range(rng.randrange(1, 6))
    ]
    answers = [
        {"id": a["id"], "response": rng.choice(("dog car", "a cat", "", phrase(rng)))} for a in annotations if rng.random() < 0.95
    ]
    words = {name: rng.choice((["puppy"], [], [name])) for name in (*things, "car")}
    if rng.random() < 0.2:
        words |= {rng.choice(things): rng.choice(ODD)}
    held = {
        "n": as_file(rng, damaged(rng, annotations)),
        "a": as_file(rng, damaged(rng, answers)),
        "s": with_noise(rng, b"man\nsky\n"),
    }
    held["r"] = as_file(rng, words, whole=True)
    command(held, "amber-generative", "--annotations", "n", "--answers", "a", "--relation", "r", "--safe-words", "s")


def _binary(rng: random.Random, whole: bytes, name: str) -> None:
    data = bytearray(whole)
    for _ in range(rng.randrange(4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    rows.rows_of(name, bytes(data[: rng.choice((len(data), len(data), rng.randrange(len(data))))]))


def fuzz_parquet(rng: random.Random) -> None:
    _binary(rng, example("parquet"), "a.parquet")


def fuzz_xlsx(rng: random.Random) -> None:
    _binary(rng, example("xlsx"), "a.xlsx")


TARGETS = fuzzing.targets_in(globals())


def run(name: str, cases: int, *, seed: int = 0, first: int = 0) -> tuple[int, int]:
    """`fuzzing.run` of a target, with the files in memory."""
    with files_in_memory():
        return fuzzing.run(name, TARGETS[name], cases, seed=seed, first=first)


if __name__ == "__main__":
    with files_in_memory():
        fuzzing.main(__doc__.splitlines()[0], TARGETS)
