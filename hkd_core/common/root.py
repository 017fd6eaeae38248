"""Where the project is: the folder that holds dvc.yaml."""

from pathlib import Path

from hkd_core.common.errors import UserError


def find_root(start: Path | None = None) -> Path:
    """The nearest folder with a dvc.yaml, from the working directory up. Raises UserError if there is none."""
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"{here}: no dvc.yaml here or above; run this inside the project")
