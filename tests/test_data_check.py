"""`python -m hkd_core.data check`: what it says, its exit codes, the leaks it names; and readers that nothing can bring down."""

import contextlib
import io
import json
import random
import subprocess
import sys
from pathlib import Path

import layouts
import pytest
from layouts import coco_name, draw
from PIL import Image

from hkd_core.common.errors import UserError
from hkd_core.data.schema import load_examples, load_pictures
from hkd_core.sources import check
from hkd_core.sources.command import main
from hkd_core.sources.reading import read_sources
from hkd_core.sources.source import save_source

LAYOUTS = ("pope", "coco", "mme", "amber", "hallusion", "challenge", "llava", "table")


@pytest.fixture
def say(capsys):
    """Runs the command; returns (exit code, its JSON or None, stderr)."""

    def run(*arguments):
        code = main(["check", *map(str, arguments)])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return run


@pytest.mark.parametrize("layout", LAYOUTS)
def test_each_layout_is_usable_as_published(layout, tmp_path, say):
    getattr(layouts, layout)(tmp_path)
    code, found, err = say(tmp_path)
    assert (code, err, found["usable"]) == (0, "", True)
    assert {source["kind"] for source in found["sources"]} == {layout}
    for source in found["sources"]:
        assert source["found"] == source["pictures"] > 0 and source["unreadable"] == source["problems"] == 0
        assert source["rows"] == sum(source["parts"].values()) > 0


def test_one_folder_may_hold_all_of_them(tmp_path, say):
    for layout in LAYOUTS:
        getattr(layouts, layout)(tmp_path / layout)
    code, found, _ = say(tmp_path)
    assert code == 0 and sorted(source["kind"] for source in found["sources"]) == sorted([*LAYOUTS, "table"])


def test_missing_pictures_are_counted_and_the_first_is_named(tmp_path, say):
    layouts.pope(tmp_path)
    for number in (310197, 310198):
        (tmp_path / "val2014" / coco_name(number)).unlink()
    code, found, err = say(tmp_path / "output")
    first = f"{tmp_path}/output/coco/coco_pope_adversarial.json:3"
    assert (code, found["usable"]) == (2, False)
    assert err == f"{tmp_path}/val2014: 2 of 8 pictures are missing, the first {coco_name(310197)}, named at {first}\n"


def test_pictures_that_are_nowhere_near_are_asked_for(tmp_path, say):
    layouts.pope(tmp_path / "a")
    (tmp_path / "a/val2014").rename(tmp_path / "photos")
    code, _, err = say(tmp_path / "a")
    assert code == 2 and err.count("\n") == 1
    assert "none of its 8 pictures is beside it" in err and "say where they are with --pictures FOLDER" in err
    assert say(tmp_path / "a", "--pictures", tmp_path / "photos")[0] == 0
    code, _, err = say(tmp_path / "a", "--pictures", tmp_path / "none")
    assert code == 2 and err == f"{tmp_path}/none: no such folder of pictures\n"


def test_every_damaged_picture_is_a_line(tmp_path, say):
    layouts.table(tmp_path)
    (tmp_path / "images/1.png").write_bytes((tmp_path / "images/1.png").read_bytes()[:200])
    (tmp_path / "images/2.png").write_bytes(b"")
    code, found, err = say(tmp_path / "rows.csv")
    assert code == 2 and found["sources"][0]["unreadable"] == 2
    lines = err.splitlines()
    assert lines[0].startswith(f"{tmp_path}/images/1.png: truncated or damaged") and "images/2.png: an empty file" in lines[1]


def test_missing_sets_and_subtasks_are_listed_and_no_mistake(tmp_path, say):
    layouts.pope(tmp_path / "pope")
    layouts.mme(tmp_path / "mme", ("existence", "count"))
    code, found, _ = say(tmp_path / "pope/output/coco")
    assert code == 0 and found["sources"][0]["absent"] == [f"{n} {s}" for n in ("aokvqa", "gqa") for s in layouts.SPLITS]
    code, found, _ = say(tmp_path / "mme")
    assert code == 0 and len(found["sources"][0]["absent"]) == 12


def test_of_many_mistakes_the_first_are_printed_and_json_has_all(tmp_path, say):
    rows = [{"image": f"{n}.jpg", "prompt": "", "answer": "x"} for n in range(50)]
    layouts.write(tmp_path / "a.jsonl", rows, lines=True)
    code, found, err = say(tmp_path / "a.jsonl")
    assert code == 2 and len(found["sources"][0]["wrong"]) == 50
    assert err.count("\n") == check.SHOWN + 1 and err.endswith("a.jsonl: 30 more problems; --format json lists all\n")


def test_a_file_in_the_folder_that_cannot_be_read_is_a_mistake(tmp_path, say):
    layouts.table(tmp_path)
    (tmp_path / "broken.json").write_text('[{"image": ')
    code, _, err = say(tmp_path)
    assert code == 2 and err.startswith(f"{tmp_path}/broken.json:1: not JSON") and err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["none"], "none: no such file or folder"),
        ([], "the following arguments are required: path"),
        (["{}", "--against", "none"], "none: no such file or folder"),
        (["{}", "--ids", "none"], "--ids: chooses among COCO's annotations, and none are at"),
        (["{}", "--format", "xml"], "invalid choice: 'xml'"),
        (["{}", "--nothing"], "unrecognized arguments: --nothing"),
    ],
)
def test_wrong_arguments_are_one_line(arguments, said, tmp_path, say):
    layouts.table(tmp_path)
    code, found, err = say(*(argument.format(tmp_path) for argument in arguments))
    assert (code, found) == (2, None) and said in err and err.count("\n") == 1


def test_the_command_as_a_person_runs_it(tmp_path):
    layouts.pope(tmp_path)

    def run(*arguments):
        return subprocess.run([sys.executable, "-m", "hkd_core.data", *arguments], capture_output=True, text=True)

    piped = run("check", str(tmp_path))
    assert piped.returncode == 0 and json.loads(piped.stdout)["usable"] is True and piped.stderr == ""
    shown = run("check", str(tmp_path), "--format", "table")
    assert "data sets\n" in shown.stdout and "coco random 8" in shown.stdout and "{" not in shown.stdout
    described = run("check", "--help")
    assert described.returncode == 0 and "examples:\n  python -m hkd_core.data check" in described.stdout


def test_a_long_check_shows_its_progress(tmp_path, say):
    draw(tmp_path / "0.jpg")
    for n in range(1, 300):
        (tmp_path / f"{n}.jpg").hardlink_to(tmp_path / "0.jpg")
    layouts.write(tmp_path / "a.jsonl", [{"image": f"{n}.jpg", "prompt": "Q?"} for n in range(300)], lines=True)
    bars = []
    original = check.progress
    check.progress = lambda **options: bars.append(options) or original(**options)
    try:
        assert say(tmp_path / "a.jsonl")[0] == 0
    finally:
        check.progress = original
    assert bars == [{"desc": "pictures of a.jsonl", "unit": "pic", "total": 300, "leave": False, "disable": False}]


# Leaks


def training(folder, pictures):
    """A table that shows `pictures`, path -> what is drawn, or None for a picture that is not stored."""
    rows = [{"image": path, "prompt": "What is it?", "answer": "It."} for path in pictures]
    for path, seed in pictures.items():
        draw(folder / path, seed=seed)
    layouts.write(folder / "train.jsonl", rows, lines=True)
    return folder / "train.jsonl"


def test_training_pictures_in_pope_are_named_by_number_and_by_looks(tmp_path, say):
    layouts.pope(tmp_path / "pope")
    own = tmp_path / "own"
    pictures = {"coco/train2017/000000310197.jpg": "another picture", "mine/a.png": coco_name(310198), "mine/b.png": "mine"}
    file = training(own, pictures)
    pope = ("--against", tmp_path / "pope/output")
    code, found, err = say(file, *pope)
    assert code == 2 and found["usable"] is False
    assert err == (
        f"{file}: 2 training pictures are also in the benchmark, "
        f"the first coco/train2017/000000310197.jpg as {coco_name(310197)} (same number)\n"
    )
    leaks = found["leaks"]
    assert [(leak["train"], leak["benchmark"], leak["how"]) for leak in leaks["pictures"]] == [
        ("coco/train2017/000000310197.jpg", coco_name(310197), "number"),
        ("mine/a.png", coco_name(310198), "looks"),
    ]
    assert (leaks["by_number"], leaks["by_looks"], leaks["benchmark_compared_by_looks"]) == (1, 1, 8)
    (tmp_path / "pope/val2014").rename(tmp_path / "far")
    code, found, _ = say(file, *pope)  # without the benchmark's pictures, numbers alone
    assert (found["leaks"]["by_number"], found["leaks"]["by_looks"], found["leaks"]["benchmark_compared_by_looks"]) == (1, 0, 0)
    assert say(file, *pope, "--against-pictures", tmp_path / "far")[1]["leaks"]["by_looks"] == 1


@pytest.mark.parametrize("form", ["instances", "numbers", "captions"])
def test_training_pictures_of_chair_are_named_whatever_lists_them(form, tmp_path, say):
    layouts.coco(tmp_path)
    file = training(tmp_path / "own", {"train2014/" + coco_name(2042, "train2014"): "x", "000000009999.jpg": "y"})
    (tmp_path / "ids.txt").write_text("42\n2042\n")
    layouts.write(tmp_path / "chair.jsonl", [{"image_id": n, "caption": "A dog."} for n in (42, 2042)], lines=True)
    against = {"instances": "annotations", "numbers": "ids.txt", "captions": "chair.jsonl"}[form]
    code, found, err = say(file, "--against", tmp_path / against)
    assert code == 2 and "1 training picture is also in the benchmark" in err
    assert [leak["train"] for leak in found["leaks"]["pictures"]] == ["train2014/" + coco_name(2042, "train2014")]


def test_ids_choose_the_benchmarks_pictures_too(tmp_path, say):
    layouts.coco(tmp_path)
    file = training(tmp_path / "own", {"000000002042.jpg": "x"})
    (tmp_path / "ids.txt").write_text("42\n1042\n")
    assert say(file, "--against", tmp_path / "annotations", "--ids", tmp_path / "ids.txt")[0] == 0


def test_gqas_bare_numbers_are_never_taken_for_cocos(tmp_path, say):
    layouts.pope(tmp_path / "pope")
    layouts.write(tmp_path / "pope/output/seem/gqa/gqa_pope_seem_random.json", layouts.pope_rows(["4626.jpg"], "random"))
    pictures = {"coco/train2017/000000004626.jpg": "a", "gqa/images/4626.jpg": "b"}
    _, found, _ = say(training(tmp_path / "own", pictures), "--against", tmp_path / "pope")
    assert [leak["train"] for leak in found["leaks"]["pictures"]] == ["gqa/images/4626.jpg"]


def test_the_readmes_python_is_followed_word_for_word(tmp_path, monkeypatch):
    layouts.pope(tmp_path / "pope")
    (tmp_path / "coco").mkdir()
    (tmp_path / "pope/val2014").rename(tmp_path / "coco/val2014")
    text = (Path(__file__).parents[1] / "data/README.md").read_text()
    monkeypatch.chdir(tmp_path)
    found: dict = {}
    exec(text.split("```python\n")[1].split("```")[0], found)
    assert (found["picture"].mode, len(found["shown"].ids)) == ("RGB", 4)
    assert load_examples("data/llava/test/examples") == found["source"].examples
    assert load_pictures("data/llava/test/pictures")[0].size == (96, 72)


def test_the_readmes_table_is_read_as_it_says(tmp_path):
    text = (Path(__file__).parents[1] / "data/README.md").read_text().split("```csv\n")[1].split("```")[0]
    (tmp_path / "mine.csv").write_text("\n".join(line.strip() for line in text.splitlines()))
    [source] = read_sources(tmp_path / "mine.csv")
    assert [(e["answer"], e["choices"]) for e in source.examples] == [("Yes", ["Yes", "No"]), ("A cup and two plates.", [])]


def test_no_leak_is_no_complaint(tmp_path, say):
    layouts.pope(tmp_path / "pope")
    code, found, err = say(training(tmp_path / "own", {"a.png": "a", "000000000001.jpg": "b"}), "--against", tmp_path / "pope")
    assert (code, err, found["leaks"]["pictures"]) == (0, "", [])


# Damage


def texts(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.rglob("*")) if path.suffix in (".json", ".jsonl", ".csv", ".txt") and path.is_file()]


def mangled(text: str, rng: random.Random) -> str:
    """Damage as scripts and people do it: characters, lines and values lost, doubled or replaced."""
    odd = [
        '"',
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\t",
        "\n",
        "\0",
        "null",
        "-1",
        "1e999",
        "true",
        '""',
        "../",
        "/",
        "é",
        "\ud83d\ude00",
        "[[",
        "{}",
    ]
    for _ in range(rng.randrange(1, 4)):
        if not text:
            break
        at, lines = rng.randrange(len(text)), text.split("\n")
        way = rng.randrange(6)
        if way == 0:
            text = text[:at] + rng.choice(odd) + text[at:]
        elif way == 1:
            text = text[:at] + text[at + rng.randrange(1, 30) :]
        elif way == 2:
            text = text[:at]
        elif way == 3:
            lines.insert(rng.randrange(len(lines)), rng.choice(lines))
            text = "\n".join(lines)
        else:
            text = replaced(text, rng)
    return text


def replaced(text: str, rng: random.Random) -> str:
    """One value of a JSON text becomes another; the text stays JSON."""
    try:
        value = json.loads(text)
    except ValueError:
        return text[::-1]
    places: list = []

    def walk(held):
        for key in held if isinstance(held, dict) else range(len(held)):
            places.append((held, key))
            if isinstance(held[key], dict | list):
                walk(held[key])

    walk(value if isinstance(value, dict | list) else [])
    if places:
        held, key = rng.choice(places)
        held[key] = rng.choice(
            [None, True, 0, -7, 1.5, 10**30, "", "x", "../x", "http://x/y", "yes", [], {}, [None], {"a": 1}, ["x"], "\ud800"]
        )
    return json.dumps(value)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_damaged_files_give_sources_or_a_user_error(layout, tmp_path):
    """300 cases a layout, 2,400 in all. Whatever is found can be looked for, and every problem is one line."""
    rng = random.Random(layout)
    small = {"pope": {"pictures": 1}, "coco": {"pictures": 2}, "mme": {"subtasks": ("color", "artwork"), "pictures": 1}}
    getattr(layouts, layout)(tmp_path, **small.get(layout, {}))
    files = texts(tmp_path)
    whole = {path: path.read_text() for path in files}
    sound = problems = refused = 0
    for _ in range(300):
        path = rng.choice(files)
        path.write_bytes(mangled(whole[path], rng).encode("utf-8", "surrogatepass"))
        try:
            sources = read_sources(rng.choice([tmp_path, path]))
            checked = [check.check_source(source) for source in sources]
            json.dumps([one.report() for one in checked])
            for source in sources if rng.random() < 0.1 else ():
                with contextlib.suppress(UserError):
                    save_source(tmp_path.parent / "stored", source)
            lines = [line for source in sources for line in source.problems]
            sound, problems = sound + (not lines), problems + bool(lines)
            assert all("\n" not in line for line in lines)
        except UserError as error:
            refused += 1
            assert "\n" not in str(error)
        path.write_text(whole[path])
    assert sound + problems + refused == 300 and sound > 10 and problems + refused > 50


def test_a_picture_too_large_for_memory_is_refused_before_it_is_decoded(tmp_path, say):
    file = io.BytesIO()
    Image.new("1", (20_000, 20_000)).save(file, "PNG")
    layouts.table(tmp_path)
    (tmp_path / "images/0.png").write_bytes(file.getvalue())
    code, _, err = say(tmp_path / "rows.csv")
    assert code == 2 and "images/0.png: too large a picture" in err and len(file.getvalue()) < 200_000
