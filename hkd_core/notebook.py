"""Notebooks as pipeline stages: run them with parameters, clean them for git, extract their code for DVC to depend on.

The only module that knows papermill. Executed notebooks are scrubbed, so that the same run gives the same bytes.
Extracted code leaves out prose, outputs and ids, so that editing those re-runs nothing.
"""

import argparse
import ast
import contextlib
import importlib.util
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hkd_core.common import progress
from hkd_core.common.command import ended
from hkd_core.common.errors import UserError
from hkd_core.common.files import CHECKPOINTS, write_text
from hkd_core.common.folders import load_folders
from hkd_core.common.root import find_root
from hkd_core.ipynb import cleaned, code_cells, read, scrubbed, text_of
from hkd_core.stage import check_room, checkpoints_of

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
LONGEST = 10_000  # characters of a parameter
MAGIC = re.compile(r"\s*[%!?]|\s*[\w, ]+=\s*[%!]|.*\?\s*$")


class FailedCell(Exception):
    """A cell that failed. Its text is some lines: where, what, and the frames that lead there."""


def parameters_of(notebook: dict, name: str) -> dict[str, Any]:
    """What the cell tagged `parameters` assigns, name to value; a value that is not a literal counts as None."""
    tagged = [cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", [])]
    found = {}
    try:
        statements = ast.parse(tagged[0]["source"]).body if tagged else []
    except SyntaxError as error:
        where = f"notebooks/{name}.ipynb: the cell tagged parameters, line {error.lineno}"
        raise UserError(f"{where}: {error.msg}") from error
    for statement in statements:
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            try:
                value = ast.literal_eval(statement.value)
            except (ValueError, TypeError):
                value = None
            found |= {target.id: value for target in targets if isinstance(target, ast.Name)}
    return found


def parse_value(text: str) -> Any:
    """JSON, or Python's spelling of the same (False, None, .5), or else the text itself."""
    for parse in (json.loads, ast.literal_eval):
        try:
            with warnings.catch_warnings(action="ignore"):  # Python's parser warns of what is nearly a number
                value = parse(text)
            json.dumps(value, ensure_ascii=False).encode()  # what cannot be written is no value
        except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):  # an unhashable key, brackets without end
            continue
        if value is None or isinstance(value, bool | int | float | str | list | dict):
            return value
    if text.lstrip()[:1] in ("{", "["):
        raise UserError(f"{text}: not JSON; quote it for the shell, for instance -p 'overrides={{\"steps\": 10}}'")
    return text


def parse_parameters(pairs: list[str], known: dict[str, Any], name: str) -> dict[str, Any]:
    """key=value pairs, and group.key=value for a parameter that is a dict.

    Raises UserError for what has no "=", and for a name that is not in `known`. It also does for a dict given as something else, and
    for text that cannot be printed.
    """
    found: dict[str, Any] = {}
    for pair in pairs:
        if not pair.isprintable() or len(pair) > LONGEST:
            raise UserError(f"-p: expected printable text of at most {LONGEST} characters, got {pair[:40]!r}")
        path, equals, text = pair.partition("=")
        group, dot, key = path.partition(".")
        if not equals or not group or (dot and not key):
            raise UserError(f"-p {pair}: expected key=value, for instance -p seed=1 or -p overrides.steps=10")
        if group not in known:
            there = ", ".join(sorted(known)) or "none"
            raise UserError(f"notebooks/{name}.ipynb: no parameter {group}; it has {there}")
        value = parse_value(text)
        is_dict = isinstance(known[group], dict)
        if dot and not is_dict:
            raise UserError(f"-p {pair}: {group} has no keys; expected {group}=value")
        if is_dict and not dot and not isinstance(value, dict):
            raise UserError(f"-p {pair}: expected {group}.key=value or {group}='{{\"key\": value}}'")
        found[group] = {**found.get(group, known[group]), key: value} if dot else value
    return found


def this_interpreter() -> type:
    """A kernel manager that starts this very interpreter.

    A kernel named python3 in the user's home or on JUPYTER_PATH cannot shadow it, and no environment need be active.
    """
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client import AsyncKernelManager
    from jupyter_client.kernelspec import KernelSpec

    environment = {
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]),
        "JUPYTER_PREFER_ENV_PATH": "1",
        # The order of sets of strings would otherwise differ from run to run.
        "PYTHONHASHSEED": os.environ.get("PYTHONHASHSEED", "0"),
        # tqdm misses its widgets, which nobody would see here.
        "PYTHONWARNINGS": ",".join(filter(None, [os.environ.get("PYTHONWARNINGS"), "ignore:IProgress not found"])),
        progress.COLUMNS: str(progress.terminal_columns()),
    }
    # What it would log: that it talks over plain TCP, which never leaves this machine, and that it was interrupted.
    spec = KernelSpec(resource_dir="", env=environment, **get_kernel_dict(extra_arguments=["--log-level=50"]))

    class ThisInterpreter(AsyncKernelManager):
        kernel_spec = property(lambda self: spec)

        async def start_kernel(self, **how: Any) -> None:
            # What its child processes print it sends to us, and then prints once more itself.
            await super().start_kernel(**how, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return ThisInterpreter


@contextlib.contextmanager
def ending_on_signals() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into SystemExit, on which papermill ends its kernel instead of leaving it."""

    def stop(number: int, frame: object) -> None:
        for other in old:
            signal.signal(other, signal.SIG_IGN)
        # It would report at length on the cell that never ended.
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)
        sys.exit(128 + number)

    def follow(parent: int) -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    # What is ignored already, under nohup for instance, stays ignored.
    numbers = [n for n in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP) if signal.getsignal(n) is not signal.SIG_IGN]
    old = {number: signal.signal(number, stop) for number in numbers}
    if "DVC_STAGE" in os.environ:
        # DVC does not pass on a signal that it alone receives.
        threading.Thread(target=follow, args=[os.getppid()], daemon=True).start()
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def run(name: str, pairs: list[str], output: Path | None = None) -> None:
    """Execute notebooks/NAME.ipynb in this interpreter, from the project's root, and write it scrubbed.

    Raises UserError, with notebook, cell and error, when a cell fails; the target is then left as it was.
    """
    root = find_root()
    [source] = chosen(root / "notebooks", [name])
    parameters = parse_parameters(pairs, parameters_of(read(source), name), name)
    target = output or load_folders().notebooks / f"{name}.ipynb"
    kept = root / "build" / "failed" / f"{target.stem}.ipynb"
    so_far = f"as far as it came: {kept.relative_to(root)}"
    try:
        import papermill
        from papermill.exceptions import PapermillExecutionError

        if importlib.util.find_spec("ipykernel_launcher") is None:
            raise ModuleNotFoundError(name="ipykernel")
        manager = this_interpreter()
    except ImportError as error:
        raise UserError(f"missing package {error.name}: set the environment up with `make test` or `pip install -e .`") from error
    # Whatever it logs comes as an exception too.
    logging.getLogger("papermill").setLevel(logging.CRITICAL)
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        with ending_on_signals():
            notebook = papermill.execute_notebook(
                str(source),
                str(kept),
                parameters=parameters,
                kernel_name="python3",
                language="python",
                kernel_manager_class=manager,
                cwd=str(root),
                progress_bar=False,
                record_timing=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
            )
    except PapermillExecutionError as error:
        kind = UserError if error.ename == "UserError" else FailedCell
        raise kind(explain(error, name, so_far)) from error
    except OSError as error:
        raise UserError(f"{error.filename or kept}: cannot be written: {error.strerror or error}") from error
    except RuntimeError as error:
        # nbclient's only sign that the kernel is gone.
        raise UserError(f"notebooks/{name}.ipynb: {error}: killed, or out of memory? ({so_far})") from error
    except SystemExit:
        print(f"notebooks/{name}.ipynb: interrupted ({so_far})", file=sys.stderr)
        raise
    if any(cell["execution_count"] is None for cell in code_cells(notebook)):
        raise UserError(f"notebooks/{name}.ipynb: left by sys.exit before its last cell ({so_far})")
    write_text(target, text_of(scrubbed(notebook)))
    kept.unlink(missing_ok=True)


def run_stage(name: str, pairs: list[str], output: Path | None) -> None:
    """`run`; for a stage of the pipeline with checkpoints, and only where its outputs fit on the disk."""
    stage = os.environ.get("DVC_STAGE")
    if stage is None:
        return run(name, pairs, output)
    root = find_root()
    check_room(root, stage)
    with checkpoints_of(root, stage, pairs) as folder:
        os.environ[CHECKPOINTS] = str(folder)  # the kernel inherits it
        run(name, pairs, output)


def explain(error: Any, name: str, so_far: str) -> str:
    """A failed cell in a few lines: where, what, which frames, the file to open. A UserError says all itself."""
    where = f"notebooks/{name}.ipynb, cell [{error.exec_count}]"
    # A syntax error numbers the cell in another way.
    message = re.sub(r" \(\d+\.py, line \d+\)", "", (str(error.evalue).splitlines() or [""])[0])
    if error.ename == "UserError":
        return f"{where}: {message}"
    frames: list[str] = []
    for line in COLOUR.sub("", "\n".join(error.traceback)).splitlines():
        if re.match(r"\s*(File .+:\d+|Cell In\s?\[\d+\], line \d+)", line):
            frames.append(line.strip())
        elif frames and (code := re.match(r"-+>\s*\d+ (.+)", line)):
            frames[-1] += f": {code[1].strip()}"
    return "\n  ".join([f"{where}: {error.ename}: {message}", *frames[:1], *frames[1:][-2:], so_far])


def clean(names: list[str], *, check: bool) -> int:
    """Strip outputs in place; with `check` only say which notebooks would change, as an exit status."""
    folder = find_root() / "notebooks"
    changed = []
    for path in chosen(folder, names):
        after = text_of(cleaned(read(path)))
        if path.read_text(encoding="utf-8") != after:
            changed.append(path.name)
            if not check:
                write_text(path, after)
    if changed:
        print(("not clean: " if check else "cleaned: ") + ", ".join(changed))
    return int(check and bool(changed))


def extract(names: list[str], to: Path | None = None) -> None:
    """Write each notebook's code cells to build/code/NAME.py; a file whose content stays is not touched."""
    root = find_root()
    folder = to or root / "build" / "code"
    for path in chosen(root / "notebooks", names):
        cells = [without_magics(cell["source"]).strip("\n").rstrip() for cell in code_cells(read(path))]
        code = "\n\n".join(cells) + "\n"
        target = folder / f"{path.stem}.py"
        if not target.is_file() or target.read_text(encoding="utf-8") != code:
            write_text(target, code)


def without_magics(code: str) -> str:
    """A cell as Python: what only IPython understands becomes a comment, all of the cell if in another language."""
    try:
        ast.parse(code)
        return code
    except SyntaxError:
        lines = code.splitlines()
    if code.lstrip().startswith("%%"):
        try:
            ast.parse(code.lstrip().partition("\n")[2])
        except SyntaxError:
            return "\n".join(f"# {line}".rstrip() for line in lines)
    return "\n".join(f"# {line}" if MAGIC.match(line) else line for line in lines)


def chosen(folder: Path, names: list[str]) -> list[Path]:
    """The named notebooks, or all of them. Raises UserError for one that is not there."""
    there = {path.stem: path for path in sorted(folder.glob("*.ipynb")) if path.is_file()}
    for name in names:
        if name not in there:
            raise UserError(f"notebooks/{name}.ipynb: no such notebook; there are {', '.join(there) or 'none'}")
    return [there[name] for name in names or there]


def notebook_name(text: str) -> str:
    """05_pyramid for itself, 05_pyramid.ipynb or notebooks/05_pyramid.ipynb."""
    return Path(text).name.removesuffix(".ipynb")


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m hkd_core.notebook", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    sub = commands.add_parser("run", help="execute a notebook and keep the result under reports/PROFILE/notebooks")
    sub.add_argument("name", type=notebook_name, help="for instance 05_pyramid")
    value_help = "for instance seed=1, overrides.gate=false or overrides='{\"steps\": 10}'; repeatable"
    sub.add_argument("-p", "--parameter", action="append", default=[], metavar="KEY=VALUE", help=value_help)
    sub.add_argument("-o", "--output", type=Path, help="where to write the result instead")
    sub = commands.add_parser("clean", help="strip outputs from notebooks, in place")
    sub.add_argument("names", nargs="*", type=notebook_name, help="all notebooks if none is named")
    sub.add_argument("--check", action="store_true", help="change nothing; exit 1 if one is not clean")
    sub = commands.add_parser("extract", help="write the notebooks' code to build/code")
    sub.add_argument("names", nargs="*", type=notebook_name, help="all notebooks if none is named")
    sub.add_argument("--to", type=Path, help="another folder than build/code")
    options = parser.parse_args(arguments)

    def run_and_report() -> int:
        try:
            run_stage(options.name, options.parameter, options.output)
        except FailedCell as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
        return 0

    work = {
        "run": run_and_report,
        "clean": lambda: clean(options.names, check=options.check),
        "extract": lambda: extract(options.names, options.to),
    }
    return ended(work[options.command])


if __name__ == "__main__":
    sys.exit(main())
