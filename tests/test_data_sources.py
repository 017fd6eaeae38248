"""Each official layout becomes examples of the one schema: compared with what was written; and bad input, each with its line."""

import json

import layouts
import numpy as np
import pandas
import pytest
from datasets import Dataset, DatasetDict, Features, Image, Value
from layouts import MME_FLAT, MME_SPLIT, OBJECTS, SPLITS, coco_name
from PIL import Image as PILImage

from hkd_core.common.errors import UserError
from hkd_core.data.schema import load_examples, load_pictures
from hkd_core.evaluation.chair import coco_vocabulary, mentioned
from hkd_core.sources.challenge import WORDING
from hkd_core.sources.reading import read_source, read_sources
from hkd_core.sources.source import find_pictures, save_source


def rows(source, *fields):
    """The examples as tuples; "meta.id" reads the field of meta."""
    of_meta = [name.removeprefix("meta.") if name.startswith("meta.") else None for name in fields]
    return [tuple(e["meta"][m] if m else e[f] for f, m in zip(fields, of_meta, strict=True)) for e in source.examples]


def test_pope_all_nine_sets_lines_and_arrays(tmp_path):
    written = layouts.pope(tmp_path)
    source = read_source(tmp_path)
    asked = rows(source, "meta.set", "task", "meta.question_id", "image_id", "prompt", "answer")
    expected = {
        (name, f"pope_{split}", str(row["question_id"]), row["image"], row["text"], row["label"].capitalize())
        for (name, split), held in written.items()
        for row in held
    }
    assert (source.kind, len(asked), set(asked), source.absent, source.problems) == ("pope", len(expected), expected, [], [])
    assert all(example["choices"] == ["Yes", "No"] for example in source.examples)
    assert set(find_pictures(source).ids) == {row["image"] for held in written.values() for row in held}


def test_pope_says_which_sets_are_not_here(tmp_path):
    layouts.pope(tmp_path)
    source = read_source(tmp_path / "output/seem/gqa")
    assert source.absent == [f"{name} {split}" for name in ("coco", "aokvqa") for split in SPLITS]
    single = read_source(tmp_path / "output/coco/coco_pope_popular.json")
    assert single.parts == {"coco popular": 8} and len(single.absent) == 8


def pope_edition(folder, sizes, words):
    """COCO's three files with the published sizes; words: split -> how "image" is spelled after "an"."""
    absent = {
        "random": ("an apple", "a cow", "a bed"),
        "popular": ("an orange", "a cat", "a bus"),
        "adversarial": ("an oven", "a bowl", "a tie"),
    }
    for split in SPLITS:
        asked = []
        for name in [coco_name(310196 + n) for n in range(500)]:
            for present, other in zip(("a dog", "a cup", "a car"), absent[split], strict=True):
                for thing, label in ((present, "yes"), (other, "no")):
                    word = words[split] if thing.startswith("an ") else "image"
                    row = {"image": name, "text": f"Is there {thing} in the {word}?", "label": label}
                    asked.append(row | {"question_id": len(asked) + 1})
        layouts.write(folder / f"coco_pope_{split}.json", asked[: sizes[split]], lines=True)
    return read_source(folder).variant


def test_the_three_circulating_popes_are_told_apart(tmp_path):
    whole = dict.fromkeys(SPLITS, 3000)
    right, old = dict.fromkeys(SPLITS, "image"), dict.fromkeys(SPLITS, "imange")
    assert "today's official files" in pope_edition(tmp_path / "a", whole, right)
    assert "first release (LLaVA, OPERA, InternVL)" in pope_edition(tmp_path / "b", whole | {"random": 2910}, old)
    assert "VCD's copies" in pope_edition(tmp_path / "c", whole, right | {"adversarial": "imange"})


def test_llavas_list_of_all_splits_takes_its_labels_from_the_official_files(tmp_path):
    written = layouts.pope(tmp_path)
    listed = [row | {"category": split} for split in SPLITS for row in written["coco", split]]
    bare = [{k: v for k, v in row.items() if k != "label"} for row in listed]
    layouts.write(tmp_path / "all/llava_pope_test.jsonl", bare, lines=True)
    alone = read_source(tmp_path / "all")
    assert alone.parts == {f"coco {split}": 8 for split in SPLITS} and "no labels in it" in alone.variant
    assert {e["answer"] for e in alone.examples} == {""}
    layouts.write(tmp_path / "output/coco/llava_pope_test.jsonl", bare, lines=True)
    both = read_source(tmp_path / "output/coco")
    assert both.parts == {f"coco {split}": 8 for split in SPLITS} and {e["answer"] for e in both.examples} == {"Yes", "No"}


def test_chairs_ground_truth_is_the_union_of_boxes_and_captions(tmp_path):
    there = layouts.coco(tmp_path)
    source = read_source(tmp_path)
    canonical = coco_vocabulary().canonical
    expected = [(coco_name(n), sorted(canonical(names)), "Please describe this image in detail.") for n, names in there.items()]
    assert rows(source, "image_id", "objects", "prompt") == expected and source.absent == []
    assert [row["task"] for row in source.examples] == ["caption"] * 5 and len(find_pictures(source).ids) == 5


def test_chairs_ground_truth_on_random_annotations_equals_a_plain_loop(tmp_path):
    rng = np.random.default_rng(0)
    numbers = [int(n) for n in rng.choice(500_000, 40, replace=False)]
    names = [line.split(",")[0] for line in ("person,man", "dog", "hot dog", "cup", "dining table", "bicycle", "truck", "kite")]
    boxes = [{"image_id": int(rng.choice(numbers)), "category_id": int(k)} for k in rng.integers(1, 9, 90)]
    words = ("a man with two dogs", "a hot dog on a table", "some trucks", "nothing", "an empty street", "bikes and kites")
    captions = [{"id": n, "image_id": int(rng.choice(numbers)), "caption": str(rng.choice(words))} for n in range(150)]
    images = [{"id": n, "file_name": coco_name(n)} for n in numbers]
    categories = [{"id": n, "name": name} for n, name in enumerate(names, 1)]
    layouts.write(tmp_path / "instances_val2014.json", {"images": images, "annotations": boxes, "categories": categories})
    layouts.write(tmp_path / "captions_val2014.json", {"images": images, "annotations": captions})
    chosen = numbers[5:25][::-1]
    (tmp_path / "ids.txt").write_text("\n".join(map(str, chosen)))
    source = read_source(tmp_path, ids=tmp_path / "ids.txt")
    vocabulary = coco_vocabulary()
    expected = []
    for number in chosen:
        found = {
            name for box in boxes if box["image_id"] == number for name in vocabulary.canonical([names[box["category_id"] - 1]])
        }
        for caption in captions:
            found |= set(mentioned(caption["caption"], vocabulary)) if caption["image_id"] == number else set()
        expected.append((str(number), sorted(found)))
    assert rows(source, "meta.image_id", "objects") == expected


@pytest.mark.parametrize("form", ["numbers", "names", "array", "captions"])
def test_a_published_list_of_pictures_chooses_among_cocos(form, tmp_path):
    layouts.coco(tmp_path)
    numbers = [2042, 42]
    lines = {"numbers": "2042\n42\n", "names": f"{coco_name(2042)}\n{coco_name(42)}\n", "array": "[2042, 42]"}
    captions = "".join(json.dumps({"image_id": n, "caption": "A dog."}) + "\n" for n in numbers)
    (tmp_path / "ids").write_text(lines.get(form, captions))
    source = read_source(tmp_path / "annotations", ids=tmp_path / "ids")
    assert rows(source, "image_id") == [(coco_name(n),) for n in numbers] and "the 2 pictures of" in source.variant


@pytest.mark.parametrize("nested", ["", "MME_Benchmark", "MME_Benchmark_release_version/MME_Benchmark"])
def test_mme_both_layouts_nested_or_not(nested, tmp_path):
    written = layouts.mme(tmp_path / nested)
    source = read_source(tmp_path)
    expected = {(name, f"{name}/{picture}", question, answer) for name, picture, question, answer in written}
    found = rows(source, "meta.subtask", "image_id", "prompt", "answer")
    assert set(found) == expected and len(found) == len(written) and source.absent == []
    assert f"split {len(MME_SPLIT)}, flat {len(MME_FLAT)}" in source.variant
    shown = find_pictures(source)
    assert len(shown.ids) == 28 and (np.asarray(shown.open("artwork/0001.png")) == np.asarray(layouts.drawn("artwork1"))).all()


def test_mme_in_part_says_what_is_not_here(tmp_path):
    layouts.mme(tmp_path, ("existence", "count", "position", "color"))
    source = read_source(tmp_path)
    assert len(source.absent) == 10 and "complete: the four hallucination subtasks" in source.variant and not source.problems


def test_amber_is_joined_by_id_and_knows_its_odd_type(tmp_path):
    written = layouts.amber(tmp_path)
    for path in (tmp_path, tmp_path / "data/query/query_all.json", tmp_path / "data/annotations.json"):
        source = read_source(path)
        asked = {
            (str(q["id"]), q["image"], q["query"], "" if n["type"] == "generative" else n["truth"].capitalize()) for q, n in written
        }
        assert set(rows(source, "meta.id", "image_id", "prompt", "answer")) == asked and len(source.examples) == 7
        assert source.parts == {"generative": 1, "existence": 1, "state": 1, "number": 1, "action": 1, "relation": 2}
    described = [e for e in source.examples if e["task"] == "amber_generative"]
    assert [(e["objects"], e["meta"]["hallu"], e["choices"]) for e in described] == [(["dog"], ["cat"], [])]


def test_hallusion_bench_with_and_without_pictures(tmp_path):
    written = layouts.hallusion(tmp_path)
    source = read_source(tmp_path)
    expected = [((row["filename"] or "")[2:], row["question"], ("No", "Yes")[int(row["gt_answer"])]) for row in written]
    assert rows(source, "image_id", "prompt", "answer") == expected
    assert len(find_pictures(source).ids) == 4 and rows(source, "meta.set_id") == [(str(n),) for n in range(6)]


def test_the_challenge_lists_its_options_as_its_wording_does(tmp_path):
    written = layouts.challenge(tmp_path)
    source = read_source(tmp_path)
    held = [row["metadata"] for row in written]
    assert rows(source, "image_id", "answer") == [(row["image_id"], row["correct_choice"]) for row in held]
    for example, row in zip(source.examples, held, strict=True):
        options = [choice["choice"] for choice in row["choices"]]
        assert example["prompt"].endswith(WORDING.list_options(options)) and example["meta"]["options"] == options
        assert example["claim"] == row.get("claim", "") and example["caption"] == row.get("system1_answer", "")
    assert WORDING.list_options(["yes", "no"]) == "A. yes\nB. no"


def test_the_challenges_test_set_has_no_labels(tmp_path):
    held = layouts.challenge(tmp_path)
    for row in held:
        del row["metadata"]["correct_answer"], row["metadata"]["correct_choice"]
    layouts.write(tmp_path / "task1.json", held[:3])
    source = read_source(tmp_path / "task1.json")
    assert source.parts == {"task1 without labels": 3} and source.absent == ["task2"]


def test_every_answer_of_a_conversation_is_an_example(tmp_path):
    layouts.llava(tmp_path)
    source = read_source(tmp_path)
    assert rows(source, "image_id", "prompt", "answer", "meta.turn") == [
        ("coco/train2017/000000033471.jpg", "What is 0?", "It is 0.", 1),
        ("coco/train2017/000000033471.jpg", "And then?", "No more.", 2),
        ("gqa/images/2405722.jpg", "What is 1?", "It is 1.", 1),
        ("vg/VG_100K/2405722.jpg", "What is 2?", "It is 2.", 1),
    ]
    assert (
        source.examples[1]["meta"]["history"] == [["What is 0?", "It is 0."]] and "left out: 1 without a picture" in source.variant
    )


def test_plain_tables_csv_and_lines_give_the_same_examples(tmp_path):
    written = layouts.table(tmp_path)
    found = [read_source(tmp_path / f"rows.{ending}") for ending in ("csv", "jsonl")]
    assert found[0].examples == found[1].examples
    assert rows(found[0], "image_id", "prompt", "answer") == [tuple(row.values()) for row in written]
    assert found[0].examples[0]["choices"] == ["Yes", "No"] and len(find_pictures(found[0]).ids) == 4


def test_a_table_may_have_every_field_of_the_schema(tmp_path):
    row = {"image": "a.jpg", "question": "Which?", "label": "B", "choices": ["A", "B"], "task": "task1", "caption": "c"}
    row |= {"context": "d", "claim": "e", "objects": ["dog"]}
    layouts.write(tmp_path / "a.json", [row, {"image": "b.jpg", "prompt": "What?"}])
    first, second = read_source(tmp_path / "a.json").examples
    assert {k: first[k] for k in ("task", "answer", "caption", "context", "claim", "objects")} == {
        **{k: row[k] for k in ("task", "caption", "context", "claim", "objects")},
        "answer": "B",
    }
    assert (second["answer"], second["choices"], second["objects"]) == ("", [], [])


def test_what_is_read_is_stored_for_the_pipeline_without_copying_pictures(tmp_path):
    layouts.pope(tmp_path / "raw", pictures=3)
    source = read_source(tmp_path / "raw")
    save_source(tmp_path / "data/llava/test", source)
    examples, pictures = load_examples(tmp_path / "data/llava/test/examples"), load_pictures(tmp_path / "data/llava/test/pictures")
    assert examples == source.examples and set(pictures.ids) == {example["image_id"] for example in examples}
    first = pictures.ids[0]
    assert (np.asarray(pictures[0]) == np.asarray(PILImage.open(tmp_path / "raw/val2014" / first))).all()
    (tmp_path / "raw/val2014" / first).unlink()
    with pytest.raises(UserError, match="1 of 6 pictures are missing, the first"):
        save_source(tmp_path / "data/llava/again", source)
    assert not (tmp_path / "data/llava/again").exists()


# Data sets of the hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")


def hub_table(rows, pictures):
    features = Features({name: Value("string") for name in rows[0]} | {"image": Image()})
    return Dataset.from_list(
        [row | {"image": layouts.drawn(name)} for row, name in zip(rows, pictures, strict=True)], features=features
    )


def test_popes_hub_columns_with_the_pictures_in_the_table(tmp_path, cache):
    asked = [row | {"category": split} for split in SPLITS for row in layouts.pope_rows([coco_name(1), coco_name(2)], split)]
    names = ("id", "question_id", "question", "answer", "image_source", "category")
    held = [
        dict(
            zip(
                names, (str(n), str(row["question_id"]), row["text"], row["label"], row["image"][:-4], row["category"]), strict=True
            )
        )
        for n, row in enumerate(asked)
    ]
    table = hub_table(held, [row["image_source"] for row in held])
    table.save_to_disk(tmp_path / "saved")
    (tmp_path / "pope_parquet/data").mkdir(parents=True)
    table.to_parquet(tmp_path / "pope_parquet/data/test-00000-of-00001.parquet")
    whole = DatasetDict(
        {split: table.filter(lambda row, s=split: row["category"] == s).remove_columns("category") for split in SPLITS}
    )
    whole.save_to_disk(tmp_path / "pope_full")  # as config Full: a split each
    for path in ("hub:{}/saved", "{}/saved", "{}/pope_parquet", "hub:{}/pope_full"):
        source = read_source(path.format(tmp_path))
        assert (source.kind, source.parts) == ("pope", {f"coco {split}": 4 for split in SPLITS})
        assert rows(source, "prompt", "answer") == [(row["text"], row["label"].capitalize()) for row in asked]
        shown = find_pictures(source)
        assert shown.missing() is None and len(shown.ids) == 2
        assert (np.asarray(shown.open(coco_name(2)[:-4])) == np.asarray(layouts.drawn(coco_name(2)[:-4]))).all()
    save_source(tmp_path / "stored", source)
    stored = load_pictures(tmp_path / "stored/pictures")
    assert (np.asarray(stored[1]) == np.asarray(layouts.drawn(stored.ids[1]))).all()


def test_mmes_hub_columns(tmp_path, cache):
    held = [
        {"question_id": f"color/{n}.png", "question": f"Is it {word}?", "answer": word, "category": "color"}
        for n in range(2)
        for word in ("Yes", "No")
    ]
    hub_table(held, [row["question_id"] for row in held]).save_to_disk(tmp_path / "mme")
    source = read_source(tmp_path / "mme")
    assert (source.kind, source.parts, find_pictures(source).ids) == ("mme", {"color": 4}, ["color/0.png", "color/1.png"])


def test_hallusion_benchs_hub_columns_with_a_split_without_pictures(tmp_path, cache):
    layouts.hallusion(tmp_path / "official")
    official = [row for row in json.loads((tmp_path / "official/HallusionBench.json").read_text())]
    columns = ("category", "subcategory", "visual_input", "set_id", "figure_id", "question_id", "question", "gt_answer")
    held = [{name: row[name] for name in columns} for row in official]
    seen = [row for row in held if row["visual_input"] == "1"]
    bare = Dataset.from_list([row | {"image": None} for row in held if row["visual_input"] == "0"])
    tables = {"image": hub_table(seen, [row["set_id"] for row in seen])}
    tables["non_image"] = bare.cast(tables["image"].features)
    DatasetDict(tables).save_to_disk(tmp_path / "hub")
    source = read_source(tmp_path / "hub")
    assert (source.kind, source.problems, len(source.examples)) == ("hallusion", [], 6)
    assert {row["image_id"] for row in source.examples} == {"", "image-0", "image-1", "image-2", "image-3"}
    assert find_pictures(source).missing() is None and len(find_pictures(source).ids) == 4


def test_a_hub_name_that_cannot_be_loaded_is_one_line(monkeypatch):
    monkeypatch.setattr("hkd_core.sources.hub.load_dataset", lambda *names: (_ for _ in ()).throw(ConnectionError("no\nnetwork")))
    with pytest.raises(UserError, match=r"^hub:owner/name: cannot be loaded: no network$"):
        read_sources("hub:owner/name")


# Bad input, each with its line


def changed(name, **fields):
    def change(value):
        value[name] = value[name] | fields

    return change


def dropped(name, field):
    return lambda value: value[name].pop(field)


def meta(**fields):
    return lambda value: value[0]["metadata"].update(fields)


POPE = "output/coco/coco_pope_random.json"
BAD = {
    "pope: a label": ("pope", POPE, changed(1, label="maybe"), f'{POPE}:2: "label" must be "yes" or "no", got "maybe"'),
    "pope: no question": ("pope", POPE, dropped(1, "text"), f'{POPE}:2: missing "text", the question'),
    "pope: no picture": ("pope", POPE, dropped(2, "image"), f'{POPE}:3: missing "image"'),
    "pope: an id twice": ("pope", POPE, changed(3, question_id=1), f'{POPE}:4: question_id "1" occurs twice, first at'),
    "pope: a URL": ("pope", POPE, changed(0, image="http://x/a.jpg"), f"{POPE}:1: picture 'http://x/a.jpg' is a URL"),
    "pope: out": ("pope", POPE, changed(0, image="../a.jpg"), f"{POPE}:1: picture '../a.jpg' leaves its folder"),
    "pope: misnamed set": (
        "pope",
        "output/seem/gqa/gqa_pope_seem_random.json",
        lambda value: [row.update(image=coco_name(1)) for row in value],
        "should ask about GQA's pictures (2405722.jpg), got",
    ),
    "pope: contradiction": (
        "pope",
        POPE,
        lambda value: value.append(value[0] | {"label": "no", "question_id": 99}),
        f"{POPE}:9: the label contradicts that of the same question at",
    ),
    "coco: category": (
        "coco",
        "annotations/instances_val2014.json",
        lambda value: value["annotations"][2].update(category_id=999),
        '"annotations" item 3: no category has the id 999',
    ),
    "coco: stranger": (
        "coco",
        "annotations/captions_val2014.json",
        lambda value: value["annotations"][1].update(image_id=7),
        '"annotations" item 2: picture 7 is not among "images" (1 such)',
    ),
    "coco: no number": (
        "coco",
        "annotations/captions_val2014.json",
        lambda value: value["images"][0].update(id="dog"),
        '"images" item 1: "id" must be a picture\'s number, got "dog"',
    ),
    "amber: id": ("amber", "data/query/query_all.json", changed(0, id=99), 'item 1: id "99" has no annotation'),
    "amber: type": ("amber", "data/annotations.json", changed(1, type="odd"), 'discriminative types, got "odd"'),
    "amber: truth": (
        "amber",
        "data/annotations.json",
        changed(1, truth="maybe"),
        'item 2: "truth" must be "Yes" or "No", got "maybe"',
    ),
    "amber: names": ("amber", "data/annotations.json", changed(0, truth="dog"), '"truth" and "hallu": expected lists of names'),
    "hallusion: answer": (
        "hallusion",
        "HallusionBench.json",
        changed(0, gt_answer="yes"),
        '"gt_answer" must be "0" or "1", got "yes"',
    ),
    "hallusion: file": (
        "hallusion",
        "HallusionBench.json",
        changed(0, filename=None),
        'item 1: missing "filename"; only questions',
    ),
    "challenge: choice": ("challenge", "task1.json", meta(correct_choice="E"), '"correct_choice" must be "A", "B" or "C", got "E"'),
    "challenge: choices": (
        "challenge",
        "task1.json",
        meta(choices=[]),
        '"choices": expected {"id": "A", "choice": "..."} at least twice',
    ),
    "challenge: twice": (
        "challenge",
        "task1.json",
        lambda value: value.append(value[0]),
        "item 4: the same item occurs twice, first at",
    ),
    "llava: turns": (
        "llava",
        "mix.json",
        lambda value: value[0]["conversations"].reverse(),
        'item 1: "conversations" item 1: expected a text from "human"',
    ),
    "llava: half": ("llava", "mix.json", lambda value: value[1]["conversations"].pop(), 'item 2: "conversations": expected pairs'),
    "llava: two pictures": ("llava", "mix.json", changed(1, image=["a.jpg", "b.jpg"]), 'item 2: "image": expected one picture'),
    "llava: no picture": (
        "llava",
        "mix.json",
        dropped(1, "image"),
        "item 2: expected one picture for one <image>, got 1 <image> and none",
    ),
    "table: answer": (
        "table",
        "rows.jsonl",
        changed(2, answer="Perhaps"),
        'rows.jsonl:3: "answer" must be "Yes" or "No", got "Perhaps"',
    ),
    "table: prompt": ("table", "rows.jsonl", dropped(2, "prompt"), 'rows.jsonl:3: missing "question", "prompt" or "query"'),
    "table: picture": ("table", "rows.jsonl", dropped(2, "image"), 'rows.jsonl:3: missing "image", the picture\'s path'),
    "table: choices": ("table", "rows.jsonl", changed(2, choices=[1]), 'rows.jsonl:3: "choices": expected a list of texts'),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_rows_are_named_by_file_and_line(what, tmp_path):
    layout, file, change, said = BAD[what]
    getattr(layouts, layout)(tmp_path)
    path = tmp_path / file
    lines = path.read_text().count("\n{") > 0
    value = [json.loads(line) for line in path.read_text().splitlines()] if lines else json.loads(path.read_text())
    change(value)
    layouts.write(path, value, lines=lines)
    problems = [line for source in read_sources(tmp_path) for line in source.problems]
    assert any(str(path) in line and said in line for line in problems), problems
    assert all("\n" not in line for line in problems)
    with pytest.raises(UserError):
        read_source(path if layout != "coco" else tmp_path)


@pytest.mark.parametrize(
    "text, said",
    [
        ("Is it?\tYes\n", "0000.txt: expected 2 questions about the picture, got 1"),
        ("Is it?\tYes\nIs it?\tPerhaps\n", '0000.txt:2: expected the answer "Yes" or "No", got "Perhaps"'),
        ("Is it? Yes\nIs it?\tNo\n", "0000.txt:1: expected question and answer with one tab between, got 0 tabs"),
        ("a.jpg\tIs it?\tYes\nIs it?\tNo\n", "0000.txt:1: expected question and answer with one tab between, got 2 tabs"),
        (b"\xff\xfe\x00", "0000.txt:1: expected UTF-8 text"),
    ],
)
def test_bad_texts_of_mme_are_named_by_file_and_line(text, said, tmp_path):
    layouts.mme(tmp_path, ("color", "artwork"))
    (tmp_path / "color/0000.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    [source] = read_sources(tmp_path)
    assert len(source.problems) == 1 and said in source.problems[0] and len(source.examples) == 6


def test_one_file_under_the_names_of_two_splits_is_noticed(tmp_path):
    written = layouts.pope(tmp_path)
    layouts.write(tmp_path / "output/coco/coco_pope_popular.json", written["coco", "random"], lines=True)
    [source] = read_sources(tmp_path)
    assert len(source.problems) == 1 and "coco random asks the same questions as coco popular" in source.problems[0]


def test_a_set_that_is_here_twice_is_noticed(tmp_path):
    written = layouts.pope(tmp_path)
    layouts.write(tmp_path / "more/coco/coco_pope_random.json", written["coco", "random"], lines=True)
    [source] = read_sources(tmp_path)
    assert len(source.problems) == 1 and "coco random is here twice, first at" in source.problems[0]


@pytest.mark.parametrize(
    "name, content, said",
    [
        ("a.json", "", "a.json: no lines in it"),
        ("a.json", "{", "a.json:1: not JSON"),
        ("a.json", '[{"x": 1}]', "a.json: not recognised: expected POPE, COCO"),
        ("a.csv", "x,y\n1,2\n", "a.csv: not recognised"),
        ("a.json", '{"annotations": [], "images": 3}', 'a.json: "images": expected a list of objects'),
        ("a.pkl", b"\x80\x04\x95\xff", "a.pkl:1: expected UTF-8 text"),
        ("a.parquet", b"PAR1xx", "a.parquet: not a parquet file"),
    ],
)
def test_files_that_are_nothing_are_one_line(name, content, said, tmp_path):
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        read_source(tmp_path / name)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_paths_that_hold_nothing_are_one_line(tmp_path):
    for path, said in (
        (tmp_path / "none", "no such file or folder"),
        (tmp_path, "nothing recognised in it"),
        ("a\0b", "no such file or folder"),
    ):
        with pytest.raises(UserError, match=said):
            read_sources(path)
    layouts.table(tmp_path)
    with pytest.raises(UserError, match="expected one data set, got 2: table, table"):
        read_source(tmp_path)


def test_lists_of_pictures_that_are_none_are_one_line(tmp_path):
    layouts.coco(tmp_path)
    for text, said in (
        ("42\n42\n", "ids:2"),
        ("42\n7\n", "1 of 2 pictures are not in the annotations, the first 7"),
        ("", "no lines"),
    ):
        (tmp_path / "ids").write_text(text)
        with pytest.raises(UserError, match=said):
            read_source(tmp_path / "annotations", ids=tmp_path / "ids")


def test_parquet_tables_are_read_too(tmp_path):
    layouts.table(tmp_path)
    frame = pandas.DataFrame([{"image": "images/0.png", "prompt": "Is it?", "answer": "Yes", "objects": list(OBJECTS[:2])}])
    frame.to_parquet(tmp_path / "a.parquet")
    assert read_source(tmp_path / "a.parquet").examples[0]["objects"] == list(OBJECTS[:2])
