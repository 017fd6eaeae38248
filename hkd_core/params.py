"""Settings: `from hkd_core.params import load_params`; `python -m hkd_core.params` prints them."""

from hkd_core.common.params import STAGES, load_params, load_seed, read_params

__all__ = ["STAGES", "load_params", "load_seed", "read_params"]
