"""POPE (arXiv 2305.10355): is the object there? Three splits choose the absent objects; see `evaluation.pope` for the rules."""

from dataclasses import replace

from hkd_core.evaluation.benchmark import yes_no
from hkd_core.evaluation.pope import SPLITS

POPE = tuple(replace(yes_no(f"pope_{split}"), table="pope", fits_constants=split == "adversarial") for split in SPLITS)
