"""POPE (arXiv 2305.10355): is the object there? Three splits choose the absent objects; see `evaluation.pope` for the rules."""

from hkd_core.evaluation.benchmark import yes_no
from hkd_core.evaluation.pope import SPLITS

POPE = tuple(yes_no(f"pope_{split}") for split in SPLITS)
