"""HKD4VLM: pyramid (PPOD), ternary refinement (TCRD), mapping shift (MSI). `docs/snippets/hkd.py` runs all three on your own examples.

An example is a dict with `image`, `prompt`, `choices` and `answer` ("" where it is not known).
"""

from hkd_core.common.settings import PyramidSettings, TernarySettings
from hkd_core.hkd.mapping_shift import MappingShift
from hkd_core.hkd.pyramid import PyramidResult, train_pyramid
from hkd_core.hkd.ternary import Refinement, refine

__all__ = ["MappingShift", "PyramidResult", "PyramidSettings", "Refinement", "TernarySettings", "refine", "train_pyramid"]
