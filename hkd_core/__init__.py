"""Hallucination distillation for vision-language models: HKD4VLM and SEED, independently implemented."""

__version__ = "0.1.0"
