"""Settings: `from hkd_core.params import load_params`; `python -m hkd_core.params` prints every setting of a profile."""

import sys

from hkd_core.common.params import STAGES, load_params, load_profile, load_seed, main, read_params

__all__ = ["STAGES", "load_params", "load_profile", "load_seed", "read_params"]

if __name__ == "__main__":
    sys.exit(main())
