"""Small data sets in the official layouts, with pictures drawn by PIL. What is written is returned, for tests to compare with."""

import json
import random
from pathlib import Path

from PIL import Image, ImageDraw

OBJECTS = ("dog", "cup", "car", "chair", "bird", "apple")
SPLITS = ("random", "popular", "adversarial")
MME_SPLIT = ("artwork", "celebrity", "landmark", "posters", "scene")
MME_FLAT = ("existence", "count", "position", "color", "OCR", "commonsense_reasoning", "numerical_calculation")
MME_FLAT += ("text_translation", "code_reasoning")


def coco_name(number: int, part: str = "val2014") -> str:
    return f"COCO_{part}_{number:012d}.jpg"


def drawn(seed: object, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """Ellipses of random colours."""
    rng = random.Random(str(seed))
    picture = Image.new("RGB", size, tuple(rng.randrange(256) for _ in "rgb"))
    for _ in range(12):
        x, y = rng.randrange(size[0]), rng.randrange(size[1])
        w, h = rng.randrange(4, size[0] // 2), rng.randrange(4, size[1] // 2)
        ImageDraw.Draw(picture).ellipse((x - w, y - h, x + w, y + h), fill=tuple(rng.randrange(256) for _ in "rgb"))
    return picture


def draw(path: Path, seed: object = None, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn(path.name if seed is None else seed).save(path, **options)
    return path


def write(path: Path, value: object, *, lines: bool = False, indent: int | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row) + "\n" for row in value) if lines else json.dumps(value, indent=indent)
    path.write_text(text, encoding="utf-8")
    return path


def pope_rows(images: list[str], split: str, word: str = "image") -> list[dict]:
    """Two questions a picture; every split asks about other absent objects."""
    rows = []
    for n, image in enumerate(images):
        absent = OBJECTS[(n + 1 + SPLITS.index(split)) % len(OBJECTS)]
        for name, label in ((OBJECTS[n % len(OBJECTS)], "yes"), (absent, "no")):
            article = "an" if name[0] in "aeiou" else "a"
            text = f"Is there {article} {name} in the {'imange' if article == 'an' and word == 'imange' else 'image'}?"
            rows.append({"question_id": len(rows) + 1, "image": image, "text": text, "label": label})
    return rows


def pope(root: Path, pictures: int = 4) -> dict[tuple[str, str], list[dict]]:
    """All nine official files: COCO's as JSON lines, the others as pretty arrays. Pictures under val2014 and images."""
    coco = [coco_name(310196 + n) for n in range(pictures)]
    genome = [f"{2405722 + n}.jpg" for n in range(pictures)]
    for name in coco:
        draw(root / "val2014" / name)
    for name in genome:
        draw(root / "val2014" / name)
    found = {}
    for split in SPLITS:
        found["coco", split] = pope_rows(coco, split)
        write(root / f"output/coco/coco_pope_{split}.json", found["coco", split], lines=True)
        for name, images in (("aokvqa", coco), ("gqa", genome)):
            found[name, split] = pope_rows(images, split)
            write(root / f"output/seem/{name}/{name}_pope_seem_{split}.json", found[name, split], indent=4)
    return found


def coco(root: Path, pictures: int = 5) -> dict[int, set[str]]:
    """instances and captions of val2014, and the pictures. Returns number -> the names that are there, by either."""
    numbers = [42 + 1000 * n for n in range(pictures)]
    categories = [{"id": 10 + n, "name": name, "supercategory": "x"} for n, name in enumerate(OBJECTS)]
    images = [{"id": n, "file_name": coco_name(n), "width": 96, "height": 72} for n in numbers]
    boxes, captions, there = [], [], {}
    for k, number in enumerate(numbers):
        boxed, told = OBJECTS[k % 6], OBJECTS[(k + 2) % 6]
        boxes.append({"id": k, "image_id": number, "category_id": 10 + k % 6, "bbox": [0, 0, 9, 9]})
        captions += [{"id": 9 * k + n, "image_id": number, "caption": f"Two {told}s on a hill."} for n in range(2)]
        there[number] = {boxed, told}
        draw(root / "val2014" / coco_name(number))
    write(root / "annotations/instances_val2014.json", {"images": images, "annotations": boxes, "categories": categories})
    write(root / "annotations/captions_val2014.json", {"images": images, "annotations": captions})
    return there


def mme(root: Path, subtasks: tuple[str, ...] = (*MME_SPLIT, *MME_FLAT), pictures: int = 2) -> list[tuple[str, str, str, str]]:
    """Both layouts, jpg and png mixed. Returns (subtask, picture, question, answer)s."""
    rows = []
    for name in subtasks:
        for n in range(pictures):
            stem, ending = f"{n:04d}", "png" if n % 2 else "jpg"
            folder = root / name
            draw((folder / "images" if name in MME_SPLIT else folder) / f"{stem}.{ending}", seed=f"{name}{n}")
            lines = [(f"Is this {name} {k}?{' ' * (1 + n)}Please answer yes or no.", "Yes" if k else "No") for k in (1, 0)]
            text = (folder / "questions_answers_YN" if name in MME_SPLIT else folder) / f"{stem}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text("\r\n".join("\t".join(line) for line in lines))
            rows += [(name, f"{stem}.{ending}", question, answer) for question, answer in lines]
    return rows


AMBER_TYPES = ("generative", "discriminative-hallucination", "discriminative-attribute-state", "discriminative-attribute-number")
AMBER_TYPES += ("discriminative-attribute-action", "discriminative-relation", "relation")


def amber(root: Path) -> list[tuple[dict, dict]]:
    """annotations.json, all query files, relation.json, safe_words.txt and pictures. Returns (query, annotation)s."""
    pairs = []
    for n, kind in enumerate(AMBER_TYPES, 1):
        truth = {"truth": ["dog"], "hallu": ["cat"]} if kind == "generative" else {"truth": "yes" if n % 2 else "no"}
        pairs.append(({"id": n, "image": f"AMBER_{n}.jpg", "query": f"Is it {n}?"}, {"id": n, "type": kind} | truth))
        draw(root / f"image/AMBER_{n}.jpg")
    write(root / "data/query/query_all.json", [query for query, _ in pairs])
    write(root / "data/query/query_generative.json", [query for query, note in pairs if note["type"] == "generative"])
    write(root / "data/query/query_discriminative.json", [query for query, note in pairs if note["type"] != "generative"])
    write(root / "data/annotations.json", [note for _, note in pairs])
    write(root / "data/relation.json", {"dog": ["puppy"]})
    (root / "data/safe_words.txt").write_text("picture\n")
    return pairs


def hallusion(root: Path) -> list[dict]:
    rows = []
    for n in range(6):
        bare = n % 3 == 2
        name = None if bare else f"./VS/chart/{n}_1.png"
        row = {"category": "VS", "subcategory": "chart", "visual_input": "0" if bare else "1", "set_id": str(n)}
        row |= {"figure_id": "0" if bare else "1", "sample_note": "x", "question_id": "0", "question": f"Is {n} right?"}
        rows.append(row | {"gt_answer_details": "", "gt_answer": str(n % 2), "filename": name})
        if name:
            draw(root / name)
    write(root / "HallusionBench.json", rows)
    return rows


def challenge(root: Path) -> list[dict]:
    rows = []
    for n in range(3):
        image = f"0038579470{n:06d}.jpg"
        draw(root / "images" / image)
        options = [{"id": letter, "choice": text} for letter, text in zip("ABC", ("No hallucination", "dog", "hat"), strict=True)]
        row = {"image_id": image, "system1_question": "Describe.", "system1_answer": f"A dog with {n} hats."}
        row |= {"system2_question": "Which belongs to hallucination?", "choices": options}
        rows.append({"metadata": row | {"correct_answer": "dog", "correct_choice": "ABC"[n]}})
    write(root / "task1.json", rows)
    truths = [{"id": i, "choice": t} for i, t in zip("ABCD", ("True", "False", "Partially True", "Not Verifiable"), strict=True)]
    row = {"image_id": "0234613.jpg", "claim": "It rains.", "context": "It is May.", "question": "Is the claim factual?"}
    rows2 = [{"metadata": row | {"correct_answer": "False", "correct_choice": "B", "choices": truths}}]
    draw(root / "images/0234613.jpg")
    write(root / "task2.json", rows2)
    return rows + rows2


def llava(root: Path) -> list[dict]:
    rows = []
    for n, image in enumerate(("coco/train2017/000000033471.jpg", "gqa/images/2405722.jpg", "vg/VG_100K/2405722.jpg")):
        draw(root / image)
        said = [("human", f"<image>\nWhat is {n}?"), ("gpt", f"It is {n}."), ("human", "And then?"), ("gpt", "No more.")][
            : 2 + 2 * (n == 0)
        ]
        rows.append({"id": f"{n}", "image": image, "conversations": [{"from": who, "value": text} for who, text in said]})
    text = [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi"}]
    rows.append({"id": "text", "conversations": text})
    write(root / "mix.json", rows)
    return rows


def table(root: Path) -> list[dict]:
    """The same rows as rows.csv and rows.jsonl."""
    rows = [{"image": f"images/{n}.png", "prompt": f"Is it, {n}?", "answer": "Yes" if n % 2 else "No"} for n in range(4)]
    for row in rows:
        draw(root / row["image"])
    write(root / "rows.jsonl", [row | {"choices": ["Yes", "No"]} for row in rows], lines=True)
    lines = ["image,prompt,answer,choices", *(f'{row["image"]},"{row["prompt"]}",{row["answer"]},Yes|No' for row in rows)]
    (root / "rows.csv").write_text("\n".join(lines) + "\n")
    return rows
