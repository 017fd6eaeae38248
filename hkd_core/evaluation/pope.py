"""POPE (arXiv 2305.10355): questions about presence, built by the published rules, and their scores."""

import random
from collections import Counter, defaultdict
from collections.abc import Sequence

from hkd_core.common.errors import UserError
from hkd_core.data.wording import Wording

SPLITS = ("random", "popular", "adversarial")
POSITIVES = 3  # objects asked about in each picture; as many absent ones


def build_questions(pictures: Sequence[dict], split: str, *, seed: int = 0) -> list[dict]:
    """Six questions a picture of at least three objects: the first three present, each followed by one that is absent.

    pictures: {"image", "objects"}. The absent one is, in "random", any. In "popular" it is the most frequent by pictures, and in
    "adversarial" the one that most often meets the present one before it. Ties go in first-seen order. No absent object is used
    twice for a picture. Where the adversarial list is exhausted, one is drawn at random.
    Raises UserError for an unknown split.
    """
    if split not in SPLITS:
        raise UserError(f'POPE split: expected one of {", ".join(SPLITS)}, got "{split}"')
    rng = random.Random(f"pope/{split}/{seed}")
    names = list(dict.fromkeys(name for picture in pictures for name in picture["objects"]))
    frequency = Counter(name for picture in pictures for name in dict.fromkeys(picture["objects"]))
    met: dict[str, Counter] = defaultdict(Counter)
    for picture in pictures:
        present = list(dict.fromkeys(picture["objects"]))
        for name in present:
            met[name].update(other for other in present if other != name)
    popular = sorted(names, key=lambda name: -frequency[name])  # stable: ties in first-seen order
    questions: list[dict] = []
    for picture in pictures:
        present = list(dict.fromkeys(picture["objects"]))
        if len(present) < POSITIVES:
            continue
        used = set(present)
        for name in present[:POSITIVES]:
            free = [other for other in names if other not in used]
            if not free:
                raise UserError(f"{picture.get('where', picture['image'])}: {picture['image']}: expected {POSITIVES} known objects that it does not show, got {len(used) - len(present)}")
            if split == "popular":
                absent = next(other for other in popular if other not in used)
            elif split == "adversarial":
                together = sorted(met[name], key=lambda other: -met[name][other])
                absent = next((other for other in together if other not in used), None) or rng.choice(free)
            else:
                absent = rng.choice(free)
            used.add(absent)
            for asked, label in ((name, "yes"), (absent, "no")):
                row = {"question_id": len(questions) + 1, "image": picture["image"], "text": Wording().ask_about(asked)}
                questions.append(row | {"label": label, "object": asked})
    return questions
