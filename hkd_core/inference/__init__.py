"""Inference: answers scored and generated, and what a model answers without looking."""

from hkd_core.inference.contrast import hallucination_score, isolate, plausible, purify
from hkd_core.inference.generation import contrastive, generate
from hkd_core.inference.scoring import answer_logits, prior_logits, score_choices
from hkd_core.inference.views import VIEWS, Features, distorted_views, with_ids

__all__ = [
    "VIEWS",
    "Features",
    "answer_logits",
    "contrastive",
    "distorted_views",
    "generate",
    "hallucination_score",
    "isolate",
    "plausible",
    "prior_logits",
    "purify",
    "score_choices",
    "with_ids",
]
