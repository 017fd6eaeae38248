"""Inference: scored answers, generation, contrast, mapping shift."""

from hkd_core.inference.generation import generate
from hkd_core.inference.scoring import score_choices

__all__ = ["generate", "score_choices"]
