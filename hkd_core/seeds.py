"""The study, or its ablations, once for every seed: another world, other pictures, other base models.

`python -m hkd_core.seeds study 0 1 2` runs what is committed, each seed in a separate clone under build/seeds. A clone shares DVC's
cache. It stays there, so that a run that was cut short goes on where it was. Tables come back to reports/PROFILE/seeds.
"""

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from hkd_core.common.command import ended
from hkd_core.common.errors import UserError
from hkd_core.common.files import fingerprint, read_text, write_bytes, write_text
from hkd_core.common.params import chosen_profile
from hkd_core.common.root import find_root

# What to reproduce, and in which folder of the profile's reports its tables are.
PARTS = {"study": ("dvc.yaml", "tables"), "ablations": ("reports/seeds/dvc.yaml:ablations", "ablations")}
MADE = ("dvc.lock", "reports/seeds/dvc.lock", "reports/*/figures/*", "reports/*/tables/*", "reports/*/metrics/*", "reports/*/seeds/*")
TABLES = {"study": ("results.csv", "comparisons.csv", "outcomes.csv"), "ablations": ("results.csv", "comparisons.csv")}


def git(folder: Path, *arguments: str) -> str:
    """What a git command says. Raises UserError with what it complains of."""
    try:
        done = subprocess.run(["git", "-C", str(folder), *arguments], capture_output=True, text=True)
    except FileNotFoundError as error:
        raise UserError("git is needed: seeds run in clones") from error
    if done.returncode:
        raise UserError(f"{folder}: git {arguments[0]}: {(done.stderr.strip().splitlines() or ['failed'])[-1]}")
    return done.stdout.strip()


def committed(root: Path) -> str:
    """The commit to run. Raises UserError where code or settings differ from it."""
    changed = git(root, "status", "--porcelain", "--", "hkd_core", "notebooks", "dvc.yaml", "reports/seeds/dvc.yaml", "params.yaml")
    if changed:
        raise UserError(f"{changed.splitlines()[0][2:].strip()}: not committed; every seed runs what is committed")
    return git(root, "rev-parse", "HEAD")


def prepared(root: Path, seed: int, commit: str) -> Path:
    """The seed's clone at `commit`, with its seed set; what it made before stays."""
    folder = root / f"build/seeds/{seed}"
    if not (folder / ".git").exists():
        git(root, "clone", "--quiet", "--no-checkout", str(root), str(folder))
    git(folder, "fetch", "--quiet", "origin", commit)
    git(folder, "reset", "--quiet", "--mixed", commit)
    # Code and settings are the commit's; what this seed made before stays, also where git has another seed's of the same name.
    git(folder, "restore", "--quiet", "--source", commit, "--worktree", "--", ".", *(f":(exclude){name}" for name in MADE))
    write_text(folder / ".dvc/config.local", f"[cache]\n    dir = {root / '.dvc/cache'}\n")
    settings, times = re.subn(r"(?m)^seed:.*$", f"seed: {seed}", read_text(folder / "params.yaml"))
    if times != 1:
        raise UserError(f"{folder / 'params.yaml'}: expected one line that begins with `seed:`, found {times}")
    write_text(folder / "params.yaml", settings)
    return folder


def run(part: str, seeds: list[int]) -> None:
    """Reproduce a part (of PARTS) for every seed and fetch its tables. Raises UserError naming the seed that failed."""
    root = find_root()
    commit = committed(root)
    target, tables = PARTS[part]
    profile = chosen_profile()
    for number, seed in enumerate(seeds, 1):
        print(f"seed {seed} ({number} of {len(seeds)}), in build/seeds/{seed}", flush=True)
        folder = prepared(root, seed, commit)
        # Its own hkd_core before the installed one, which follows the working tree.
        done = subprocess.run(
            [sys.executable, "-m", "dvc", "repro", target], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}
        )
        if done.returncode:
            raise UserError(f"seed {seed}: stopped, see above; run the same again to go on")
        for name in TABLES[part]:
            made = folder / "reports" / profile / tables / name
            if not made.is_file():
                raise UserError(f"seed {seed}: expected the run to write {made.relative_to(root)}, it did not")
            write_bytes(root / f"reports/{profile}/seeds/{part}/{seed}-{name}", made.read_bytes())
        settings = re.sub(r"(?m)^seed:.*$", "", read_text(folder / "params.yaml"))
        made_by = fingerprint(folder / "build/code", folder / "hkd_core", folder / "dvc.yaml", settings=settings)
        write_text(root / f"reports/{profile}/seeds/{part}/{seed}-code.txt", made_by + "\n")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hkd_core.seeds", description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("seeds", nargs="+", type=int, metavar="SEED", help="for instance 0 1 2")
    options = parser.parse_args(arguments)
    return ended(lambda: run(options.part, options.seeds))


if __name__ == "__main__":
    sys.exit(main())
