"""Does a family answer through this library as its plain model does? Every family of `miniatures` against every check.

    python -m hkd_core.rehearse.conformance [--family NAME]

prints a table family x check. In it stand: ok with the largest difference, what differs and by how much, or why a family is refused.
"""

import argparse
import sys
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

from hkd_core.common.errors import UserError
from hkd_core.rehearse.checks import CHECKS, Bench, Differs
from hkd_core.rehearse.miniatures import FAMILIES, REFUSED, lacks, quiet


def outcome(bench: Bench, check: str) -> str:
    """What stands in the table."""
    try:
        size = CHECKS[check](bench)
    except Differs as error:
        return str(error)
    except Exception as error:  # a check that cannot run is a result, too
        return f"fails: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    return f"ok {size:.0e}" if size else "ok"


def table_of(families: Sequence[str], folder: Path) -> dict[str, dict[str, str]]:
    """family -> check -> what came of it; a family that cannot be loaded has the one check "load"."""
    found = {}
    for family in families:
        if missing := lacks(family):
            found[family] = {"load": f"skipped: {missing}"}
            continue
        try:
            bench = Bench(family, folder)
        except UserError as error:
            word = "refused" if family in REFUSED else "fails"
            found[family] = {"load": f"{word}: {str(error).rpartition('model_type: ')[2]}"}
            continue
        found[family] = {check: outcome(bench, check) for check in CHECKS}
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m hkd_core.rehearse.conformance", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--family", choices=[*FAMILIES, *REFUSED], help="only this one")
    chosen = parser.parse_args(arguments).family
    families = [chosen] if chosen else [*FAMILIES, *REFUSED]
    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder, quiet():
        found = table_of(families, Path(folder))
    print("".join([f"{'':16}", *(f"{check:>10}" for check in CHECKS)]))
    notes = []
    for family, row in found.items():
        if "load" in row:
            print(f"{family:16}  {row['load']}")
            continue
        print("".join([f"{family:16}", *(f"{word if word.startswith('ok') else 'NO':>10}" for word in row.values())]))
        notes += [f"{family}, {check}: {word}" for check, word in row.items() if not word.startswith("ok")]
    print("\n".join(notes))
    return 1 if notes or any("fails" in row.get("load", "") for row in found.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
