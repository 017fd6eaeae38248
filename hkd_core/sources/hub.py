"""Data sets of the Hugging Face hub, or a folder in one of its forms, as records whose pictures stay in their table.

Known columns are those of lmms-lab/POPE, lmms-lab/MME and lmms-lab/HallusionBench; others are read as plain rows.
"""

from collections.abc import Mapping
from pathlib import Path

from datasets import Dataset, DatasetDict, Image, concatenate_datasets, disable_progress_bars, load_dataset, load_from_disk

from hkd_core.common.errors import UserError
from hkd_core.data.schema import Pictures
from hkd_core.evaluation.pope import SPLITS
from hkd_core.evaluation.records import SPLIT, Record, flattened

PREFIX = "hub:"
Rows = dict[str, tuple[str, int]]  # a record's place -> its split and number


def is_local(folder: Path) -> bool:
    """Whether a folder holds a data set as `save_to_disk` writes it, or as the hub keeps it (parquet files with pictures in them)."""
    saved = (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()
    return saved or any((folder / "data").glob("*.parquet")) or any(folder.glob("*-of-*.parquet"))


def load(name: str) -> tuple[list[Record], Rows, dict[str, Dataset]]:
    """All rows of all splits as records, without their pictures; where each comes from; and the tables with the pictures.

    name: "hub:OWNER/NAME[/CONFIG]" or "hub:FOLDER". Raises UserError if it cannot be loaded, or has no rows.
    """
    disable_progress_bars()
    place = name.removeprefix(PREFIX)
    try:
        if Path(place).is_dir():
            saved = any(Path(place, file).is_file() for file in ("dataset_dict.json", "state.json"))
            held = load_from_disk(place) if saved else load_dataset(place)
        else:
            owner, _, rest = place.partition("/")
            dataset, _, config = rest.partition("/")
            held = load_dataset(f"{owner}/{dataset}", config or None)
    except Exception as error:  # the hub's client and pyarrow raise many kinds
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{name}: cannot be loaded: {reason}") from error
    tables = dict(held) if isinstance(held, DatasetDict) else {"all": held}
    records: list[Record] = []
    rows: Rows = {}
    for split, table in tables.items():
        plain = [column for column, feature in table.features.items() if not isinstance(feature, Image)]
        column = _column(table)
        shown = table.data.column(column).is_valid().to_pylist() if column else [False] * len(table)
        for number, fields in enumerate(table.select_columns(plain)):
            fields = _named(flattened(fields), split, number, shown=shown[number])
            record = Record(fields, f"{name} {split} row {number + 1}")
            records.append(record)
            rows[record.where] = (split, number)
    if not records:
        raise UserError(f"{name}: no rows in it")
    return records, rows, tables


def _column(table: Dataset) -> str | None:
    return next((column for column, feature in table.features.items() if isinstance(feature, Image)), None)


def _named(fields: dict, split: str, number: int, *, shown: bool) -> dict:
    """The row with a name for its picture, if it is shown one, and with POPE's split where only the table's name tells it."""
    record = Record(fields, "")
    if shown and not record.picture() and "filename" not in fields:
        name = fields.get("question_id")
        fields = fields | {"image": name if isinstance(name, str) and "/" in name else f"{split}-{number}"}
    return fields if split not in SPLITS or record.name_of(*SPLIT) else fields | {"category": split}


def pictures(name: str, places: Mapping[str, str], rows: Rows, tables: Mapping[str, Dataset]) -> Pictures:
    """The pictures by image_id. places: image_id -> the place of the first row that shows it. Raises UserError for no picture column."""
    parts = []
    for split, table in tables.items():
        column = _column(table)
        wanted = {image_id: rows[place][1] for image_id, place in places.items() if rows[place][0] == split}
        if wanted and column is None:
            raise UserError(f"{name}: the split {split} has no column of pictures")
        if wanted:
            chosen = table.select(list(wanted.values())).select_columns([column])
            chosen = chosen if column == "image" else chosen.rename_column(column, "image")
            parts.append(chosen.add_column("image_id", list(wanted)))
    if not parts:
        raise UserError(f"{name}: no row shows a picture")
    return Pictures(concatenate_datasets(parts), name)
