"""Models: load any vision-language model, build the small ones, adapters."""

from hkd_core.models.adapter import HallucinationEliminationAdapter
from hkd_core.models.loading import load_vlm
from hkd_core.models.vlm import VLM, save_models

__all__ = ["VLM", "HallucinationEliminationAdapter", "load_vlm", "save_models"]
