"""Writing files so that a reader never meets a half-written one, and reading them with errors that name the place."""

import csv
import hashlib
import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from hkd_core.common.errors import UserError

CHECKPOINTS = "HKD_CHECKPOINTS"  # in the environment: the folder in which trainings keep checkpoints; without it they keep none


def write_bytes(path: str | Path, content: bytes) -> Path:
    """Write beside `path`, then rename over it, making parent folders as needed.

    Raises UserError, naming the path, where it cannot be written (permission, full disk).
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            file.write(content)
        temporary.chmod(0o644)
        temporary.replace(path)
    except BaseException as error:  # Ctrl-C too leaves nothing behind
        if temporary is not None:
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
        raise
    return path


def write_text(path: str | Path, text: str) -> Path:
    """`write_bytes` of UTF-8 text."""
    return write_bytes(path, text.encode())


def write_json(path: str | Path, value: object) -> Path:
    """`write_text` of JSON with sorted keys and a final newline; NaN and infinity are refused (ValueError)."""
    return write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def write_csv(path: str | Path, rows: list[dict], fields: list[str]) -> Path:
    """`write_text` of `rows` as CSV with a header; a row with a key outside `fields` is refused (ValueError)."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fields, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return write_text(path, text.getvalue())


def write_folder(path: str | Path, fill: Callable[[Path], None]) -> Path:
    """Let `fill(folder)` write a fresh folder beside `path`, then swap it in whole; on an error `path` is untouched.

    Raises UserError, naming the path, where it cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        fresh.chmod(0o755)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    before = None
    try:
        fill(fresh)
        if path.exists():
            before = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.")) / "before"
            os.replace(path, before)
        os.replace(fresh, path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written: {error.strerror or error}") from error
    finally:
        if before is not None and before.exists() and not path.exists():
            os.replace(before, path)
        for left in (fresh, before and before.parent):
            if left is not None:
                shutil.rmtree(left, ignore_errors=True)
    return path


def read_text(path: str | Path) -> str:
    """UTF-8 text, with or without a byte-order mark. Raises UserError naming the file."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: expected UTF-8 text") from error


def read_json(path: str | Path) -> object:
    """Raises UserError naming the file, and the line of a syntax error."""
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}") from error


def read_jsonl(path: str | Path) -> Iterator[tuple[int, dict]]:
    """Yield (line number from 1, object) for every non-blank line; UserError names file and line."""
    # Only "\n" ends a line: JSON strings may hold other separators that `splitlines` would cut at.
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(f"{path}:{number}: not JSON: {error.msg}") from error
        if not isinstance(value, dict):
            raise UserError(f"{path}:{number}: expected a JSON object, got {type(value).__name__}")
        yield number, value


def is_content(path: Path) -> bool:
    """Not a cache of Python, and not what a write that was killed has left behind."""
    return not any(part == "__pycache__" or part.startswith(".") for part in path.parts)


def fingerprint(*paths: str | Path, **settings: object) -> str:
    """A hash of the files at (or under) `paths` and of settings: equal only if all of them are."""
    found = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode())
    for path in map(Path, paths):
        for file in (
            [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and is_content(p.relative_to(path)))
        ):
            found.update(f"{file.relative_to(path)}\n".encode())
            found.update(hashlib.sha256(file.read_bytes()).digest())
    return found.hexdigest()


def resumed(path: str | Path, key: str, compute: Callable[[], list[dict]]) -> list[dict]:
    """What `compute` gives, or gave before under the same key: `path` keeps it, as JSON lines behind a line with the key.

    So long work that was killed goes on from what it has. Rows come back as JSON holds them.
    """
    if Path(path).is_file():
        (_, head), *kept = read_jsonl(path)
        if head == {"key": key}:
            return [row for _, row in kept]
    rows = compute()
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in [{"key": key}, *rows]))
    return rows
