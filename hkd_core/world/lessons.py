"""What the built-in world asks a model that teaches itself: presence questions to be purged, and anchors."""

import random

from hkd_core.data.schema import Pictures
from hkd_core.world.facts import Fact
from hkd_core.world.scenes import absent, stored_scenes
from hkd_core.world.tasks import random_fact, task1, task2, yes_no

ANCHORS = ("color", "count", "relation")  # facts that anchors ask about


def draw_lessons(pictures: Pictures, *, questions: int, seed: int) -> tuple[list[dict], list[dict]]:
    """(presence questions, anchors) about stored pictures.

    questions: how many for each picture, in turn about an object that is not there and one that is. 70 % of the absent ones fit.
    anchors: about every second picture, one question of each of ANCHORS and both tasks of the challenge.
    """
    rng = random.Random(f"evolve/{seed}")
    asked, anchors = [], []
    for k, scene in enumerate(stored_scenes(pictures)):
        for n in range(questions):
            name = rng.choice(scene.names) if n % 2 else absent(scene, rng, tempting=rng.random() < 0.7)
            asked.append(yes_no(scene, Fact("presence", name)))
        if k % 2 == 0:
            facts = [random_fact(scene, kind, rng, rng.random() < 0.5) for kind in ANCHORS]
            anchors += [
                row for row in (*(yes_no(scene, fact) for fact in facts if fact), task1(scene, rng), task2(scene, rng)) if row
            ]
    return asked, anchors
