"""`python -m hkd_core.data check PATH`. The command is `sources.command`: its readers know benchmarks, which this package does not."""

import sys

from hkd_core.sources.command import main

if __name__ == "__main__":
    sys.exit(main())
