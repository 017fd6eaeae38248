"""Kill the smoke pipeline at seeded moments, run it again each time, and compare what it leaves with an undisturbed run.

`python scripts/kill.py [--kills 100] [--seed 0] [--longest 20]` works in a copy under build/kill. Each kill is SIGKILL, SIGTERM or SIGINT
to the whole group, the runner, a kernel or a worker. It fails if a process is left 10 s later, or if an output differs at the end.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TARGETS = {"group": "", "runner": "hkd_core.notebook", "kernel": "ipykernel_launcher", "worker": "popen_loky_posix"}
COPIED = ("hkd_core", "notebooks", "params.yaml", "dvc.yaml", ".dvc", "pyproject.toml", "reports/seeds")


def copy_of_the_project(to: Path) -> Path:
    """A copy without results, whose DVC cache is a folder inside it."""
    shutil.rmtree(to, ignore_errors=True)
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, to / name, ignore=shutil.ignore_patterns("cache", "tmp", "__pycache__", "config.local"))
        else:
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, to / name)
    (to / ".dvc/config.local").write_text("[core]\n    no_scm = true\n    analytics = false\n")
    return to


def started(folder: Path) -> subprocess.Popen:
    environment = os.environ | {"PYTHONPATH": str(folder), "HKD_KILL": str(folder)}
    log = (folder / "log.txt").open("a")
    command = [sys.executable, "-m", "hkd_core.repro", "smoke"]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True)


def processes(folder: Path) -> dict[int, str]:
    """Running processes of the copy, by the variable that all of them inherit: number -> command line."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if f"HKD_KILL={folder}\0".encode() not in (entry / "environ").read_bytes():
                continue
            if (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found[int(entry.name)] = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
    return found


def outputs(folder: Path) -> dict[str, str]:
    """Every file the pipeline made -> its hash."""
    files = [path for name in ("data", "models", "reports") for path in (folder / name).rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def kill(process: subprocess.Popen, folder: Path, rng: random.Random) -> str:
    """Send one signal; returns what was hit. A target that is not there at the moment becomes the group."""
    number, target = rng.choice(SIGNALS), rng.choice(list(TARGETS))
    victims = [pid for pid, command in processes(folder).items() if TARGETS[target] and TARGETS[target] in command]
    if victims:
        os.kill(rng.choice(victims), number)
    else:
        target = "group"
        os.killpg(process.pid, number)
    return f"{number.name} to {target}"


def survivors(folder: Path, seconds: float = 10) -> dict[int, str]:
    end = time.monotonic() + seconds
    while (left := processes(folder)) and time.monotonic() < end:
        time.sleep(0.2)
    return left


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest", type=float, default=20, help="seconds until a kill, at most")
    options = parser.parse_args()
    rng = random.Random(options.seed)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # in the background it is ignored, and so it would be by the runs
    calm = copy_of_the_project(ROOT / "build/kill/calm")
    if started(calm).wait():
        sys.exit(f"the undisturbed run failed: see {calm / 'log.txt'}")
    expected = outputs(calm)
    shaken = copy_of_the_project(ROOT / "build/kill/shaken")
    hit: dict[str, int] = {}
    times, done = 0, False
    while not done:
        process = started(shaken)
        if times < options.kills:
            try:
                process.wait(rng.uniform(1, options.longest))
                shutil.rmtree(shaken)  # it came to the end: from the start again
                copy_of_the_project(shaken)
                continue
            except subprocess.TimeoutExpired:
                what = kill(process, shaken, rng)
            times, hit[what] = times + 1, hit.get(what, 0) + 1
            if "worker" in what or "kernel" in what:
                process.wait()
            if left := survivors(shaken):
                sys.exit(f"kill {times}, {what}: still running: {left}")
            print(f"kill {times}: {what}", flush=True)
        elif process.wait():
            sys.exit(f"after {times} kills the run failed: see {shaken / 'log.txt'}")
        else:
            done = True
    found = outputs(shaken)
    different = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    print(*(f"{count:4}  {what}" for what, count in sorted(hit.items())), sep="\n")
    print(f"{times} kills, {len(expected)} files, {len(different)} different{': ' if different else ''}{', '.join(different)}")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
