"""Inputs for `fuzz_readers.py`: small benchmark files as tools write them, then damaged."""

import io
import json
import random

ODD = [None, True, 0, 1, -1, 1.0, 1.5, 1e300, float("nan"), 10**400, [], ["x"], "", " ", "1", "1.0", "yes", "No", "\ud800"]
ODD += [
    "狗",
    "a\nb",
    "a\tb",
    {},
    {"a": 1},
    [[]],
    "\x00",
    "x" * 500,
    "COCO_val2014_000000000007.jpg",
    "<think>",
    "</think>",
    "Yes <think> no",
    "B.",
    "=1+1",
    '"',
]
WORDS = "yes no Yes No NO not n't the answer is : . , ( ) ? ! * A B C D a b True False Partially dog cat hot <think> </think>"
WORDS = [
    *WORDS.split(),
    "<answer>",
    "</answer>",
    "\\boxed{",
    "}",
    " ",
    "\n",
    "\t",
    "\ud800",
    "狗",
    "é",
    "\x00",
    "option",
    "choice",
    "or",
    "and",
    "-",
    "/",
]


def phrase(rng: random.Random, most: int = 12) -> str:
    return rng.choice(("", " ")).join(rng.choice(WORDS) for _ in range(rng.randrange(most)))


def yes_no(rng: random.Random) -> str:
    return rng.choice(("Yes", "No", "yes", "no.", "Yes, there is.", "The answer is no", phrase(rng)))


def pope_rows(rng: random.Random) -> tuple[list[dict], list[dict]]:
    names = ["dog", "car", "cup", "bus", "hot dog"]
    questions = [
        {
            "question_id": k,
            "image": f"{k // 2}.jpg",
            "text": f"Is there a {names[k % 5]} in the image?",
            "label": "yes" if k % 2 else "no",
        }
        for k in range(rng.randrange(1, 7))
    ]
    answers = [{"question_id": q["question_id"], rng.choice(("text", "answer", "response")): yes_no(rng)} for q in questions]
    if rng.random() < 0.3:
        answers = [a | {"prompt": q["text"], "image": q["image"]} for a, q in zip(answers, questions, strict=True)]
    return questions, answers


def damaged(rng: random.Random, items: list[dict]) -> list:
    """Some fields dropped, renamed, swapped or replaced; some rows doubled, dropped or exchanged for something else."""
    items = [dict(item) for item in items]
    for _ in range(rng.choice((0, 0, 0, 0, 0, 0, 1, 1, 2, 4))):
        if not items:
            break
        place = rng.randrange(len(items))
        item, kind = items[place], rng.randrange(7)
        if not isinstance(item, dict) or not item:
            continue
        name = rng.choice(list(item))
        if kind == 0:
            del item[name]
        elif kind == 1:
            item[name] = rng.choice(ODD)
        elif kind == 2:
            item[rng.choice(("text", "answer", "id", "question", "category", "doc", "metadata", "prompt"))] = rng.choice(
                (item[name], *ODD)
            )
        elif kind == 3:
            items.append(dict(item))
        elif kind == 4:
            del items[place]
        elif kind == 5:
            rng.shuffle(items)
        else:
            items[place] = rng.choice((item, item, 7, [], "text", None))
    return items


def as_file(rng: random.Random, value: object, *, whole: bool = False) -> bytes:
    """Items as a file of any kind, or any value as JSON; then perhaps damaged text."""
    kind = rng.randrange(6)
    items = value if isinstance(value, list) else None
    if whole or items is None or kind == 0:
        text = json.dumps(value, indent=rng.choice((None, 1)), ensure_ascii=rng.random() < 0.5)
    elif kind in (1, 2) and items and all(isinstance(item, dict) for item in items):
        mark, names = ("\t", ",")[kind - 1], list(dict.fromkeys(name for item in items for name in item))
        held = [names, *([item.get(name, "") for name in names] for item in items)]
        text = "\n".join(
            mark.join(json.dumps(v, ensure_ascii=False) if isinstance(v, str) else str(v) for v in line) for line in held
        )
    else:
        text = rng.choice(("\n", "\n\n", "\r\n", "", " ")).join(
            json.dumps(item, indent=rng.choice((None, None, 1))) for item in items
        )
    data = rng.choice(("", "", "", "\ufeff")).encode() + text.encode("utf-8", "surrogatepass" if rng.random() < 0.1 else "replace")
    return with_noise(rng, data) if rng.random() < 0.15 else data


def with_noise(rng: random.Random, data: bytes) -> bytes:
    kind, place = rng.randrange(6), rng.randrange(len(data) + 1)
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + bytes([rng.randrange(256)]) + data[place + 1 :]
    if kind == 2:
        return (
            data[:place]
            + rng.choice((b"{", b"}", b"[", b"]", b'"', b",", b"\n", b"\x00", b"\xff", b"NaN", b"[" * 3000, b"9" * 5000))
            + data[place:]
        )
    if kind == 3:
        return data.decode("utf-8", "replace").encode(rng.choice(("utf-16", "latin-1", "utf-8-sig")), "replace")
    if kind == 4:
        return data + data
    return data.replace(rng.choice((b"}", b'"', b":", b",")), rng.choice((b"", b"}}", b'"')), 1)


EXAMPLES: dict[str, bytes] = {}


def example(kind: str) -> bytes:
    """A small table as a file. Raises ImportError for xlsx without openpyxl."""
    if kind not in EXAMPLES:
        import pandas

        frame, held = pandas.DataFrame([{"question_id": 1.0, "text": "Yes"}, {"question_id": 2.0, "text": None}]), io.BytesIO()
        frame.to_parquet(held) if kind == "parquet" else frame.to_excel(held, index=False)
        EXAMPLES[kind] = held.getvalue()
    return EXAMPLES[kind]
