"""The built-in world: labels are what the scene graph says, read here by other means than the library's."""

import random
import re
from collections import Counter

import numpy as np
import pytest

from hkd_core.common.errors import UserError
from hkd_core.data.schema import load_examples, load_pictures, save_examples
from hkd_core.world import augment as das
from hkd_core.world.drawn import scene_of
from hkd_core.world.instructions import Bias, rehearsal
from hkd_core.world.objects import COLORS, CONTEXT_OF, GRID, OBJECTS
from hkd_core.world.render import render
from hkd_core.world.scenes import Scene, absent, draw_scenes, save_scenes, stored_scenes
from hkd_core.world.sets import with_rehearsal
from hkd_core.world.tasks import FAITHFUL, LETTERS, caption, mme_pair, task1, task2
from hkd_core.world.vocabulary import vocabulary, words_of

MANY = draw_scenes("many", 300, seed=1)


def place(scene: Scene, name: str) -> tuple[int, int]:
    (cell,) = [thing.cell for thing in scene.things if thing.name == name]
    return divmod(cell, GRID)


def relation_holds(scene: Scene, words: str) -> bool:
    a, b = words.split()[0], words.split()[-1]
    (row_a, column_a), (row_b, column_b) = place(scene, a), place(scene, b)
    sides = {"left": column_a < column_b, "right": column_a > column_b, "above": row_a < row_b, "below": row_a > row_b}
    return sides[words.split()[1]]


def options_of(row: dict) -> list[str]:
    """The options as the prompt lists them; they are the phrases that the prompt's caption is made of."""
    text, listed = row["prompt"].split(" Which phrase is wrong? ")
    options = re.split(r" ?[A-D]: ", listed)[1:]
    said, mentioned = re.fullmatch(r"(?:The image shows|There is) an? (.+) and an? (\w+)\.", text).groups()
    color, subject, *between, other = said.split()
    relation = " ".join(word for word in between if word not in ("a", "an"))
    assert sorted(options) == sorted([FAITHFUL, mentioned, f"{color} {subject}", f"{subject} {relation} {other}"])
    assert row["caption"] == text and row["meta"]["options"] == options
    return options


def wrong_phrases(row: dict, scene: Scene) -> list[str]:
    """Which options of a detection item are false, read from the prompt alone."""
    wrong = []
    for option in options_of(row):
        words = option.split()
        if option == FAITHFUL:
            continue
        if len(words) == 1:
            false = words[0] not in scene.names
        elif len(words) == 2:
            false = {thing.color for thing in scene.things if thing.name == words[1]} != {words[0]}
        else:
            false = not relation_holds(scene, option)
        wrong += [option] * false
    return wrong


def judged(row: dict, scene: Scene) -> str:
    """The verdict on a factuality claim, read from the prompt alone."""
    context, claim = row["prompt"].split(" Claim: ")
    assert (row["context"], row["claim"]) == (context, claim)
    several = re.search(r"there may be (\w+) and (\w+)", context).groups()
    irregular = {"knives": "knife", "buses": "bus", "sheep": "sheep", "fish": "fish"}
    hidden = [irregular.get(name, name.removesuffix("s")) for name in several]
    truths = []
    for part in claim.removeprefix("There is ").rstrip(".").split(" and "):
        article, *color, name = part.split()
        if name in hidden:
            truths.append(None)
        else:
            there = any(thing.name == name and (not color or thing.color == color[0]) for thing in scene.things)
            truths.append(there != (article == "no"))
    if None in truths:
        return "not verifiable"
    return {0: "false", 1: "partially true", 2: "true"}[sum(truths)]


def test_the_same_seed_gives_the_same_scenes_and_a_longer_list_begins_with_the_shorter():
    assert draw_scenes("a", 5, seed=3) == draw_scenes("a", 9, seed=3)[:5]
    assert draw_scenes("a", 5, seed=3) != draw_scenes("a", 5, seed=4)


@pytest.mark.parametrize("seed", range(1, 4))
def test_any_seed_gives_scenes_that_fit_their_picture(seed):
    for scene in draw_scenes("crowded", 3000, seed):
        assert len({thing.cell for thing in scene.things}) == len(scene.things) <= 16


def test_a_scene_survives_storage_as_a_graph():
    for scene in MANY[:20]:
        assert Scene.from_graph(scene.image_id, scene.to_graph()) == scene


def test_no_cell_holds_two_things_and_equal_names_share_a_colour():
    for scene in MANY:
        assert len({thing.cell for thing in scene.things}) == len(scene.things)
        assert len({(thing.name, thing.color) for thing in scene.things}) == len(scene.names) >= 3


def test_a_picture_is_a_function_of_scene_and_seed():
    scene, how = MANY[0], {"sizes": (9, 14), "noise": 0.2}
    assert np.array_equal(render(scene, seed=0, **how), render(scene, seed=0, **how))
    assert not np.array_equal(render(scene, seed=0, **how), render(scene, seed=1, **how))


def test_an_object_is_drawn_in_its_own_cell():
    scene = MANY[0]
    thing = scene.things[0]
    without = Scene(scene.image_id, scene.context, scene.things[1:])
    empty = Scene(scene.image_id, scene.context, ())
    only = Scene(scene.image_id, scene.context, (thing,))
    change = np.abs(
        render(only, seed=0, sizes=(12, 12), noise=0.0).astype(int) - render(empty, seed=0, sizes=(12, 12), noise=0.0)
    ).sum(-1)
    rows, columns = np.nonzero(change)
    assert len(without.things) + 1 == len(scene.things)
    assert abs(rows.mean() - (thing.row * 16 + 8)) < 5 and abs(columns.mean() - (thing.column * 16 + 8)) < 5


def test_detection_items_have_at_most_one_wrong_phrase_and_the_answer_names_it():
    rng = random.Random(0)
    for scene in MANY:
        row = task1(scene, rng)
        if row is None:
            continue
        wrong = wrong_phrases(row, scene)
        assert row["meta"]["options"][LETTERS.index(row["answer"])] == (wrong[0] if wrong else FAITHFUL)
        assert len(wrong) <= 1 and len(set(row["meta"]["options"])) == 4


def test_factuality_verdicts_are_what_the_words_say_of_the_scene():
    rng = random.Random(0)
    rows = [(task2(scene, rng), scene) for scene in MANY]
    assert all(row["answer"] == judged(row, scene) for row, scene in rows)
    assert all(sum(row["answer"] == label for row, _ in rows) > 40 for label in rows[0][0]["choices"])


def test_mme_pairs_have_one_yes_and_one_no():
    rng = random.Random(0)
    for scene in MANY[:100]:
        for subtask in ("existence", "count", "position", "color"):
            pair = mme_pair(scene, subtask, rng)
            assert pair is None or sorted(row["answer"] for row in pair) == ["No", "Yes"]


def test_captions_name_what_is_there_with_the_right_article():
    text = caption(MANY[0])
    assert set(words_of(text)) & set(OBJECTS) == set(MANY[0].names)
    assert not re.search(r"\ba [aeiou]|\ban [^aeiou]", text)


def test_a_caption_names_each_kind_once_in_the_worlds_order_with_what_is_mixed_in():
    for scene in MANY[:50]:
        extra = absent(scene, random.Random(0), tempting=True)
        named = [word for word in words_of(caption(scene, (extra,))) if word in OBJECTS]
        assert named == sorted({*scene.names, extra}, key=OBJECTS.index)


def test_every_word_of_every_task_is_in_the_vocabulary(examples):
    known = set(vocabulary())
    assert all(set(words_of(row["prompt"])) <= known for row in examples)


def true_of(row, scene):
    """What the scene graph says of an example's words: a verdict, or the phrase that is wrong."""
    return judged(row, scene) if row["task"] == "task2" else (wrong_phrases(row, scene) or [FAITHFUL])[0]


def right_of(row):
    """What the example gives as right: a verdict, or the phrase at its letter."""
    return row["answer"] if row["task"] == "task2" else options_of(row)[LETTERS.index(row["answer"])]


@pytest.mark.parametrize("name", [*das.PRESERVING, *das.FLIPPING])
def test_an_augmentation_keeps_or_flips_the_label_as_its_kind_says(name):
    change, rng, made = (das.PRESERVING | das.FLIPPING)[name], random.Random(0), 0
    for scene in MANY:
        for row in (task1(scene, rng), task2(scene, rng)):
            found = row and change(row, scene, rng)
            if not found:
                continue
            new, new_scene = found
            assert right_of(new) == true_of(new, new_scene)
            assert (new["meta"]["type"] != row["meta"]["type"]) == (name in das.FLIPPING)
            assert set(words_of(new["prompt"])) <= set(vocabulary())
            made += 1
    assert made > 50


def test_new_examples_are_true_of_the_scenes_they_come_with_and_not_all_of_those_they_came_from():
    scenes = {scene.image_id: scene for scene in MANY}
    rng = random.Random(0)
    rows = [row for scene in MANY for row in (task1(scene, rng), task2(scene, rng)) if row]
    how = {"count": 300, "texts": [*das.PRESERVING, *das.FLIPPING], "seed": 0}
    new_scenes, changes, new = das.augment(scenes, rows, pictures=["blur", "noise"], **how)
    assert len(new_scenes) == len(changes) == len(new) == 300 and set(changes) == {"blur", "noise"}
    for scene, row in zip(new_scenes, new, strict=True):
        assert scene.image_id == row["image_id"] and right_of(row) == true_of(row, scene)
    edited = [(s, r) for s, r in zip(new_scenes, new, strict=True) if r["meta"]["augmentation"] == "counterfactual"]
    assert edited and all(scene.things != scenes[row["meta"]["of"]].things for scene, row in edited)
    assert das.augment(scenes, rows, pictures=[], **how)[1] == [None] * 300  # pictures as they are
    with pytest.raises(UserError, match="at least one of paraphrase"):
        das.augment(scenes, rows, pictures=[], **(how | {"texts": []}))


def test_a_hard_negative_swaps_objects_colours_and_relations_each():
    rng, kinds = random.Random(0), Counter()
    for scene in MANY:
        for row in (task1(scene, rng), task2(scene, rng)):
            if row and (made := das.hard_negative(row, scene, rng)):
                before, after = (das.facts_of(r) for r in (row, made[0]))
                pairs = (
                    zip(before.values(), after.values(), strict=True)
                    if isinstance(before, dict)
                    else zip(before, after, strict=True)
                )
                kinds.update(old.kind for old, new in pairs if old != new)
    assert min(kinds[kind] for kind in ("presence", "color", "relation")) > 20


def hue(rgb):
    """A colour's difference from gray, of length 1."""
    difference = np.asarray(rgb, float) - np.mean(rgb)
    return difference / (np.linalg.norm(difference) + 1e-9)


def colour_seen(picture, thing):
    """Which colour a thing has to the eye: the palette's that its middle differs from gray most like; cells are 16 pixels wide."""
    top, left = thing.row * 16 + 5, thing.column * 16 + 5
    middle = picture[top : top + 6, left : left + 6].reshape(-1, 3).mean(0)
    return max(COLORS, key=lambda name: float(hue(COLORS[name]) @ hue(middle)))


@pytest.mark.parametrize("name", das.PICTURES)
def test_a_picture_augmentation_changes_the_picture_and_leaves_things_and_their_colours(name):
    kept, known, other = 0, 0, 0
    for scene in MANY[:150]:
        picture = render(scene, seed=0, sizes=(12, 14), noise=0.0)
        changed = das.PICTURES[name](picture, scene, random.Random(scene.image_id))
        assert changed.shape == picture.shape and changed.dtype == np.uint8
        other += not np.array_equal(changed, picture)
        for thing in scene.things:
            if name == "patch_drop":
                cell = np.s_[thing.row * 16 : thing.row * 16 + 16, thing.column * 16 : thing.column * 16 + 16]
                assert np.array_equal(changed[cell], picture[cell])
            if colour_seen(picture, thing) == thing.color:
                known += 1
                kept += colour_seen(changed, thing) == thing.color
    assert other > 140 and known > 300 and kept / known > 0.98


def test_an_unknown_augmentation_is_named():
    with pytest.raises(UserError, match='got "sepia"'):
        das.augment({}, [], count=1, pictures=["sepia"], texts=[], seed=0)


def test_pictures_and_examples_come_back_from_disk_and_the_same_rows_give_the_same_bytes(tmp_path, scenes, pictures, examples):
    for name in ("a", "b"):
        save_scenes(tmp_path / name / "p", scenes[:3], [pictures[s.image_id] for s in scenes[:3]])
        save_examples(tmp_path / name / "e", examples[:5])
    stored = load_pictures(tmp_path / "a" / "p")
    assert np.array_equal(np.asarray(stored[1]), pictures[scenes[1].image_id]) and stored_scenes(stored)[1] == scenes[1]
    assert load_examples(tmp_path / "a" / "e") == examples[:5]
    files = [p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file()]
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_a_missing_dataset_and_a_wrong_answer_are_named(tmp_path, examples):
    with pytest.raises(UserError, match="no dataset here"):
        load_pictures(tmp_path / "none")
    with pytest.raises(UserError, match='got "E"'):
        save_examples(tmp_path / "e", [examples[0] | {"answer": "E"}])


def test_a_corrupt_picture_is_named_by_its_id(tmp_path, scenes, pictures):
    import pyarrow as pa
    from datasets import Dataset

    from hkd_core.data.schema import PICTURE_FEATURES

    row = {"image_id": "broken-1", "image": {"bytes": b"not a png", "path": None}, "objects": [], "graph": "{}"}
    Dataset(pa.Table.from_pylist([row], schema=PICTURE_FEATURES.arrow_schema)).save_to_disk(tmp_path / "p")
    with pytest.raises(UserError, match="picture broken-1: missing or corrupt"):
        load_pictures(tmp_path / "p")[0]


def test_a_line_of_text_becomes_a_scene():
    scene = scene_of("A red dog, two blue knives and an egg.")
    found = Counter((thing.name, thing.color) for thing in scene.things)
    assert found["dog", "red"] == 1 and found["knife", "blue"] == 2 and scene.names.count("egg") == 1
    assert scene.context == "kitchen" and len({thing.cell for thing in scene.things}) == 4
    assert scene == scene_of("A red dog, two blue knives and an egg.")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a unicorn", 'no object "unicorn"'),
        ("a pink dog", 'got "pink"'),
        ("", "1 to 16 things, got 0"),
        (", ".join(["four cups"] * 5), "got 20"),
    ],
)
def test_a_line_that_cannot_be_drawn_says_why(text, message):
    with pytest.raises(UserError, match=message):
        scene_of(text)


def test_rehearsal_answers_truly_but_for_the_prejudice(scenes):
    honest, biased = (rehearsal(scenes * 20, Bias(share, share, share), captions=0.3, seed=0) for share in (0.0, 1.0))
    by_id = {scene.image_id: scene for scene in scenes}
    counts = Counter()
    for row, how in [*((row, "honest") for row in honest), *((row, "biased") for row in biased)]:
        scene = by_id[row["image_id"]]
        if not row["choices"]:
            right = row["answer"] == caption(scene)
            assert right or how == "biased"
        else:
            name, negated = row["meta"]["facts"][0]["name"], row["meta"]["negated"]
            right = row["answer"] == ("Yes" if (name in scene.names) != negated else "No")
            tempting = name not in scene.names and CONTEXT_OF[name] == scene.context
            assert right != (tempting and how == "biased")
        counts[how, bool(row["choices"]), right] += 1
    assert counts["biased", True, False] > 50 and counts["biased", False, False] > 50
    assert 0.25 < sum(n for (_, choices, _), n in counts.items() if not choices) / counts.total() < 0.35


def test_a_tenth_of_a_tuning_set_is_rehearsed_of_pictures_whose_labels_are_known():
    tasks = [{"image_id": f"p{k}", "answer": "true" if k < 30 else ""} for k in range(200)]
    practised = [{"image_id": f"p{k}", "answer": "Yes"} for k in range(200)]
    assert with_rehearsal(tasks, practised) == tasks + practised[:20]
    assert with_rehearsal(tasks * 2, practised) == tasks * 2 + practised[:30] + practised[:10]  # few are rehearsed again
