"""SEED: identify, isolate, purge, evolve. `docs/snippets/seed.py` runs it on your own yes/no questions.

An example is a dict with `image`, `prompt`, `choices` and `answer`; `image_id` and `task` are used where they are given.
"""

from hkd_core.common.settings import EvolveSettings
from hkd_core.seed.evolve import Evolution, EvolveStep, evolve
from hkd_core.seed.identify import TokenScores, auroc_of_views, score_tokens, void_space
from hkd_core.seed.lessons import Lesson, LessonMaker
from hkd_core.seed.purge import CaptionSearch, Purge, PurgeSearch, Questions, search_caption_purge, search_purge
from hkd_core.seed.self_verification import Captioning, self_verifying

__all__ = [
    "CaptionSearch",
    "Captioning",
    "Evolution",
    "EvolveSettings",
    "EvolveStep",
    "Lesson",
    "LessonMaker",
    "Purge",
    "PurgeSearch",
    "Questions",
    "TokenScores",
    "auroc_of_views",
    "evolve",
    "score_tokens",
    "search_caption_purge",
    "search_purge",
    "self_verifying",
    "void_space",
]
