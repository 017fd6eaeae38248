"""What the evaluation's commands print: JSON or a table, and a CSV file with one row an item."""

import json
import sys
from collections.abc import Mapping, Sequence

from hkd_core.common.command import CLOSED, complain, write
from hkd_core.common.errors import UserError, one_line
from hkd_core.common.files import write_csv


def show(result: Mapping, form: str | None) -> None:
    """Print a result: as `form` ("json" or "table"), else as a table to a terminal and as JSON to anything else."""
    if sys.stdout is None:
        raise UserError(CLOSED)
    if form == "table" or (form is None and sys.stdout.isatty()):
        write(table(result))
    else:
        plain = (sys.stdout.encoding or "").lower().replace("-", "") not in ("utf8", "utf8sig")
        write(json.dumps(result, indent=2, ensure_ascii=plain))


def warn(message: str) -> None:
    complain(f"warning: {message}")



def write_items(path: str, rows: Sequence[Mapping]) -> None:
    """One CSV row an item; lists joined by "; ". Raises UserError if the file cannot be written."""
    fields = list(dict.fromkeys(name for row in rows for name in row))
    write_csv(path, [{name: cell(value) for name, value in row.items()} for row in rows], fields)


def cell(value: object) -> object:
    if isinstance(value, list | tuple):
        value = "; ".join(map(str, value))
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def table(result: Mapping, heading: str = "") -> str:
    """Nested results as text: single values first, then a table for what holds rows of single values.

    Neighbours with the same columns share one table.
    """
    single = {name: value for name, value in result.items() if not isinstance(value, Mapping | list)}
    blocks = []
    if single:
        width = max(map(len, single))
        blocks.append("\n".join(f"{name:{width}}  {number(value)}" for name, value in single.items()))
    shared: dict[tuple, dict[str, Mapping]] = {}
    for name, value in result.items():
        if isinstance(value, Mapping) and value and flat({name: value}):
            shared.setdefault(tuple(value), {})[name] = value
    for name, value in result.items():
        title = f"{heading}{name}"
        alone = shared.get(tuple(value), {}) if isinstance(value, Mapping) and flat({name: value}) else {}
        if len(alone) > 1:
            blocks += [grid(alone)] * (name == next(iter(alone)))
        elif isinstance(value, Mapping) and value:
            alike = all(isinstance(row, Mapping) for row in value.values())
            blocks.append(f"{title}\n{grid(value)}" if alike and flat(value) else table(value, f"{title}: "))
        elif isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            blocks.append(f"{title}: {len(value)} rows, shown with --format json" if len(value) > 20 else f"{title}\n{grid(value)}")
        elif isinstance(value, list) and value:
            blocks.append(f"{title}\n" + "\n".join(f"  {number(item)}" for item in value))
    return f"{heading.removesuffix(': ')}\n" * bool(heading and single) + "\n\n".join(blocks)


def flat(rows: Mapping[str, Mapping]) -> bool:
    return all(not isinstance(value, Mapping) for row in rows.values() for value in row.values())


def grid(rows: Mapping[str, Mapping] | Sequence[Mapping]) -> str:
    """Rows of single values in aligned columns; the names of rows first."""
    named = list(rows.items()) if isinstance(rows, Mapping) else [("", row) for row in rows]
    columns = list(dict.fromkeys(name for _, row in named for name in row))
    lines = [["", *columns], *([name, *(number(row.get(column)) for column in columns)] for name, row in named)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            text.ljust(width) if place == 0 else text.rjust(width)
            for place, (text, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def number(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool) or not isinstance(value, float):
        return one_line("; ".join(map(str, value)) if isinstance(value, list) else str(value))
    return f"{value:.4f}" if abs(value) <= 1 else f"{value:.2f}"
