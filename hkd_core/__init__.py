"""Hallucination distillation for vision-language models: HKD4VLM and SEED, independently implemented."""

import warnings

__version__ = "0.1.0"

# Progress bars are text here; that tqdm would like ipywidgets for prettier ones need not greet every reader in red.
warnings.filterwarnings("ignore", message="IProgress not found")
