"""Examples of every benchmark, drawn from scenes: the two tasks, POPE, captions and MME's pairs. Labels come from the scene graph."""

import random
from collections.abc import Sequence

from hkd_core.evaluation.pope import build_questions
from hkd_core.world.facts import Fact
from hkd_core.world.scenes import Scene
from hkd_core.world.tasks import CAPTION_PROMPT, caption, example, mme_pair, task1, task2, yes_no

SUBTASKS = ("existence", "count", "position", "color")


def task_examples(scenes: Sequence[Scene], split: str, seed: int) -> list[dict]:
    """Tasks 1 and 2, one example of each a scene where the scene allows it."""
    rng = random.Random(f"tasks/{seed}/{split}")
    rows = [row for scene in scenes for row in (task1(scene, rng), task2(scene, rng))]
    return [row for row in rows if row]


def without_label(row: dict) -> dict:
    """The example as somebody sees it who does not know the answer."""
    kept = {key: row["meta"][key] for key in ("options",) if key in row["meta"]}
    return row | {"answer": "", "meta": kept}


def pope_examples(scenes: Sequence[Scene], split: str, seed: int) -> list[dict]:
    """POPE's questions of one split (random, popular, adversarial), by the published rules (arXiv 2305.10355)."""
    by_id = {scene.image_id: scene for scene in scenes}
    questions = build_questions([{"image": name, "objects": scene.names} for name, scene in by_id.items()], split, seed=seed)
    return [yes_no(by_id[q["image"]], Fact("presence", q["object"]), task=f"pope_{split}") for q in questions]


def caption_and_mme_examples(scenes: Sequence[Scene], split: str, seed: int) -> list[dict]:
    """For each scene a caption, and for each of MME's subtasks a pair of questions where the scene allows it."""
    rng = random.Random(f"mme/{seed}/{split}")
    rows = []
    for scene in scenes:
        rows.append(example(scene, "caption", CAPTION_PROMPT, caption(scene)))
        for subtask in SUBTASKS:
            rows += mme_pair(scene, subtask, rng) or []
    return rows
