"""Any file of records becomes rows: JSON (lines, arrays, objects one after the other), CSV, TSV, parquet, xlsx.

A file is read once, so pipes work. Each row keeps its place for messages: `file:line`, `file: item 3` or `file: row 3` (the first
row after a table's header is 1). Tables go through pandas; xlsx also needs openpyxl.
"""

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

from hkd_core.common.errors import UserError

JSON_ENDINGS = (".json", ".jsonl", ".ndjson")
CONTAINERS = (
    "logs",
    "samples",
    "sentences",
    "data",
    "rows",
    "results",
    "questions",
    "answers",
    "predictions",
    "outputs",
    "items",
    "annotations",
)
NAME = re.compile(r"\s*\"?[^\W\d][\w .\-]{0,60}\"?\s*")
BLANK = re.compile(r"[\s\ufeff]*")
Row = tuple[str, dict]  # its place, its fields


def shown(value: object) -> str:
    """A value for a message: as JSON writes it, at most 80 characters, on one line."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=repr)
    except (ValueError, RecursionError):  # an integer of thousands of digits, or deep nesting
        text = f"a {type(value).__name__} too large to show"
    return text if len(text) <= 80 else f"{text[:77]}..."


def read_bytes(path: str | Path) -> bytes:
    """Raises UserError naming the file."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise UserError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def decoded(path: str | Path, data: bytes) -> str:
    """UTF-8 text, with or without a byte-order mark. Raises UserError naming file and line."""
    if data[:2] == b"\x1f\x8b":
        raise UserError(f"{path}: compressed: gunzip it first")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        hint = " (it looks like UTF-16)" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else ""
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(f"{path}:{line}: expected UTF-8 text{hint}; save the file as UTF-8") from error


def after_blank(text: str, at: int = 0) -> int:
    """Where the next thing that is no space starts."""
    found = BLANK.match(text, at)
    return found.end() if found else at


def _unique(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {shown(twice)} occurs twice in one object")
    return found


DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=lambda name: None)  # NaN and Infinity are no value


def json_values(path: str | Path, text: str) -> Iterator[tuple[int, object]]:
    """(line on which it starts, value) for every JSON value of a text. Raises UserError naming file and line."""
    at, line, counted = after_blank(text), 1, 0
    while at < len(text):
        line += text.count("\n", counted, at)
        counted = at
        try:
            value, at = DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            started = f" (in the value that starts on line {line})" if error.lineno != line else ""
            raise UserError(f"{path}:{error.lineno}: not JSON: {error.msg}{started}") from error
        except RecursionError as error:
            raise UserError(f"{path}:{line}: JSON nested too deep") from error
        except ValueError as error:
            message = "a number of too many digits" if "digits" in str(error) else str(error)
            raise UserError(f"{path}:{line}: not JSON: {message}") from error
        yield line, value
        at = after_blank(text, at)


def read_value(path: str | Path) -> object:
    """The one JSON value of a file. Raises UserError for none or several."""
    values = list(json_values(path, decoded(path, read_bytes(path))))
    if not values:
        raise UserError(f"{path}: nothing in it")
    if len(values) > 1:
        raise UserError(f"{path}:{values[1][0]}: expected one JSON value, got a second one")
    return values[0][1]


def read_rows(path: str | Path) -> list[Row]:
    """Every record of a file with its place. Raises UserError for a file that is missing, malformed or empty."""
    return rows_of(path, read_bytes(path))


def rows_of(path: str | Path, data: bytes) -> list[Row]:
    """`read_rows` of a file that was read; its name tells the kind where the content does not."""
    ending = Path(path).suffix.lower()
    if data[:4] == b"PAR1":
        rows = parquet_rows(path, data)
    elif data[:4] == b"PK\x03\x04":
        rows = xlsx_rows(path, data)
    elif ending in (".parquet", ".xlsx", ".xls"):
        raise UserError(f"{path}: not a {'parquet' if ending == '.parquet' else '.xlsx'} file")
    else:
        text = decoded(path, data)
        separator = separator_of(text, ending)
        rows = text_rows(path, text, separator) if separator else list(json_rows(path, text))
    if not rows:
        raise UserError(f"{path}: no lines in it")
    return rows


def json_rows(path: str | Path, text: str) -> Iterator[Row]:
    """Objects one after the other, arrays of objects, or one object that holds such an array under a usual name."""
    values = list(json_values(path, text))
    if len(values) == 1 and isinstance(values[0][1], dict):
        held = values[0][1]
        name = next((name for name in CONTAINERS if isinstance(held.get(name), list) and held[name]), None)
        if name and all(isinstance(item, dict) for item in held[name]):
            yield from ((f'{path}: "{name}" item {number}', item) for number, item in enumerate(held[name], 1))
            return
    number = 0
    for line, value in values:
        if isinstance(value, list):
            for item in value:
                number += 1
                yield f"{path}: item {number}", as_object(f"{path}: item {number}", item)
        else:
            yield f"{path}:{line}", as_object(f"{path}:{line}", value)


def as_object(where: str, value: object) -> dict:
    if not isinstance(value, dict):
        raise UserError(f"{where}: expected a JSON object, got {type(value).__name__}")
    return value


def separator_of(text: str, ending: str) -> str | None:
    """What separates a table's columns, or None for JSON. Brackets begin JSON, and a header begins a table, whatever the ending."""
    text = text[after_blank(text) :] if ending not in (".csv", ".tsv") else text  # a table's first column may have no name
    begin = after_blank(text)
    header = text[: 4000 + begin].lstrip("\ufeff\r\n").split("\n", 1)[0].rstrip("\r")
    if text[begin : begin + 1] in ("[", "{") or (ending != ".csv" and ending != ".tsv" and not header):
        return None
    if ending == ".tsv":
        return "\t"
    counts = {mark: header.count(mark) for mark in ("\t", ",", ";")}
    found = max(counts, key=counts.__getitem__)
    if ending == ".csv":
        return found if counts[found] else ","
    first, *others = header.split(found)
    named = bool(others) and all(NAME.fullmatch(name) for name in others)
    return found if named and (NAME.fullmatch(first) or not first.strip(' "')) else None  # pandas leaves the index unnamed


def text_rows(path: str | Path, text: str, separator: str) -> list[Row]:
    """Rows of a CSV or TSV file; every value is a text."""
    import pandas

    try:
        frame = pandas.read_csv(io.StringIO(text), sep=separator, header=None, dtype=str, keep_default_na=False, na_filter=False)
    except pandas.errors.EmptyDataError:
        return []
    except (ValueError, OverflowError) as error:  # pandas.errors.ParserError is a ValueError
        raise UserError(f"{path}: not a table: {_first_line(error)}") from error
    lines = frame.values.tolist()
    refuse_swallowed(path, lines, separator)
    return table_rows(path, lines)


def refuse_swallowed(path: str | Path, lines: list[list[str]], separator: str) -> None:
    """Raises UserError for a cell that swallowed whole rows, as after a quote that a script wrote without doubling it.

    Such a row has as many separators on each of its lines as the header, and begins each like the first.
    """
    for number, cells in enumerate(lines[1:], 1):
        line = [cell if isinstance(cell, str) else "" for cell in cells]
        parts = separator.join(line).split("\n")
        if len(parts) == 1 or len(line) == 1:
            continue
        if all(
            part.count(separator) >= len(line) - 1 and part.split(separator)[0].isdigit() == line[0].isdigit() for part in parts
        ):
            raise UserError(
                f"{path}: row {number}: a stray quote swallows {len(parts) - 1} of the rows after it; "
                "write the table with a CSV library, or as JSON lines"
            )


def xlsx_rows(path: str | Path, data: bytes) -> list[Row]:
    """Rows of the first sheet. An empty cell is an empty text, as in CSV."""
    import pandas

    try:
        frame = pandas.read_excel(io.BytesIO(data), header=None, dtype=object, engine="openpyxl", na_filter=False)
    except ImportError as error:
        raise UserError(f'{path}: reading .xlsx needs openpyxl (pip install -e ".[tables]"), or save it as .csv') from error
    except Exception as error:  # openpyxl lets many of its kinds and of zipfile's through
        raise UserError(f"{path}: not an .xlsx file: {_first_line(error)}") from error
    return table_rows(path, [["" if plain(value) is None else value for value in line] for line in frame.values.tolist()])


def parquet_rows(path: str | Path, data: bytes) -> list[Row]:
    """Rows of a parquet file. Columns that hold the bytes of pictures are left out."""
    import pandas
    import pyarrow.parquet

    try:
        schema = pyarrow.parquet.read_schema(io.BytesIO(data))
        names = [field.name for field in schema if "binary" not in str(field.type)]
        frame = pandas.read_parquet(io.BytesIO(data), columns=names, dtype_backend="numpy_nullable")
        values = frame.astype(object).values.tolist()  # where text that is no UTF-8 shows
    except Exception as error:  # a damaged file makes pyarrow raise almost anything
        raise UserError(f"{path}: not a parquet file: {_first_line(error)}") from error
    return table_rows(path, [names, *values] if names else [])


def table_rows(path: str | Path, lines: list[list]) -> list[Row]:
    """The first line names the columns. Raises UserError for a name that is missing or occurs twice."""
    if not lines:
        return []
    header = ["" if plain(name) is None else str(plain(name)).strip().lstrip("\ufeff") for name in lines[0]]
    twice = next((name for name in header if name and header.count(name) > 1), None)
    if twice:
        raise UserError(f"{path}: the column {shown(twice)} occurs twice")
    found = []
    for number, line in enumerate(lines[1:], 1):
        fields = {name: plain(value) for name, value in zip(header, line, strict=True) if name}
        if any(value not in (None, "") for value in fields.values()):
            found.append((f"{path}: row {number}", fields))
    return found


def plain(value: object) -> object:
    """A table's value as JSON would hold it: no value for NaN, numbers and lists of Python's own."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):  # Excel turns the word "True" into one
        return str(value)
    if isinstance(value, int | float):
        return None if value != value else value
    if isinstance(value, dict):
        return {str(key): plain(held) for key, held in value.items()}
    as_list = getattr(value, "tolist", None)  # numpy's arrays and numbers
    if as_list is not None:
        return plain(as_list())
    if isinstance(value, list | tuple):
        return [plain(held) for held in value]
    return None if type(value).__name__ in ("NAType", "NaTType") else str(value)


def _first_line(error: Exception) -> str:
    text = str(error).strip() or type(error).__name__
    return re.sub(r"^Error tokenizing data\. C error: ", "", text.split("\n", 1)[0])
