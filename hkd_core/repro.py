"""`dvc repro` under another profile than params.yaml names: `python -m hkd_core.repro smoke [TARGET ...]`.

DVC reads the profile from params.yaml alone, so it is set there for the time of the run and put back at the end.
"""

import argparse
import re
import signal
import subprocess
import sys

from hkd_core.common.command import ended
from hkd_core.common.errors import UserError
from hkd_core.common.files import read_text, write_text
from hkd_core.common.params import read_params
from hkd_core.common.root import find_root


def with_profile(text: str, profile: str) -> str:
    """The text of params.yaml with another profile. Raises UserError unless one line begins with `profile:`."""
    changed, times = re.subn(r"(?m)^profile:[^#\n]*?(?=\s*(?:#|$))", f"profile: {profile}", text)
    if times != 1:
        raise UserError(f"params.yaml: expected one line that begins with `profile:`, found {times}")
    return changed


def repro(profile: str, targets: list[str]) -> int:
    """Run `dvc repro` with `profile` chosen; returns its exit status. params.yaml is put back however the run ends."""
    params = find_root() / "params.yaml"
    known = read_params(params)["profiles"]
    if profile not in known:
        raise UserError(f'profile: expected one of {", ".join(known)}, got "{profile}"')
    before = read_text(params)
    during, line = with_profile(before, profile), re.search(r"(?m)^profile:.*$", before)
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: sys.exit(128 + number))
    try:
        write_text(params, during)
        return subprocess.run([sys.executable, "-m", "dvc", "repro", *targets], cwd=params.parent).returncode
    finally:
        # What somebody wrote into the file meanwhile stays, but for the profile.
        now = read_text(params)
        write_text(params, re.sub(r"(?m)^profile:.*$", lambda _: line[0] if line else "", now, count=1))


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hkd_core.repro", description=__doc__.splitlines()[0])
    parser.add_argument("profile", help="for instance smoke")
    parser.add_argument("targets", nargs=argparse.REMAINDER, help="what `dvc repro` takes: stages, options; all if none")
    options = parser.parse_args(arguments)
    return ended(lambda: repro(options.profile, options.targets))


if __name__ == "__main__":
    sys.exit(main())
