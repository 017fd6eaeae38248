"""Training: the one loop, what it is fed, the objectives that both methods share, and the plain ways of tuning."""

from hkd_core.common.settings import TuneSettings
from hkd_core.training.examples import TrainingSet
from hkd_core.training.trainer import LossTerm, Schedule, train
from hkd_core.training.tuning import distil, tune

__all__ = ["LossTerm", "Schedule", "TrainingSet", "TuneSettings", "distil", "train", "tune"]
