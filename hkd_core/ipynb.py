"""Notebooks as files: read, cleaned for git, scrubbed after a run. Plain dicts, without nbformat, which takes a second to import."""

import json
import re
from pathlib import Path

from hkd_core.common.errors import UserError, one_line

ADDRESS = re.compile(r"\bat 0x[0-9a-fA-F]+")


def read(path: Path) -> dict:
    """A notebook as plain dicts, every source joined to one text. Raises UserError naming the file if it is none.

    Without nbformat, which takes a second to import.
    """
    try:
        notebook = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(notebook, dict):
            raise ValueError(f"expected a JSON object, got {type(notebook).__name__}")
        if notebook["nbformat"] != 4 or not isinstance(notebook["nbformat_minor"], int):
            raise ValueError(f"expected nbformat 4, got {notebook['nbformat']}")
        for number, cell in enumerate(notebook["cells"]):
            try:
                check_cell(cell)
            except KeyError as error:
                raise ValueError(f"cell {number} lacks {error}") from error
            except (ValueError, TypeError, AttributeError) as error:
                raise ValueError(f"cell {number}: {error}") from error
        json.dumps(notebook, ensure_ascii=False).encode()  # half a surrogate pair cannot be written again
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror or error}") from error
    except KeyError as error:
        raise UserError(f"{path}: not a notebook: it lacks {error}") from error
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a notebook: {one_line(str(error))[:200]}") from error
    return notebook


def check_cell(cell: dict) -> None:
    """Join its texts. Raises KeyError, TypeError, AttributeError or ValueError for one that nbformat would refuse."""
    cell["source"] = joined(cell["source"])
    _ = " ".join(cell["metadata"].get("tags", []))  # a list of texts
    if cell["cell_type"] not in ("code", "markdown", "raw"):
        raise ValueError(f"cell_type: expected code, markdown or raw, got {cell['cell_type']}")
    outputs = cell["outputs"] if cell["cell_type"] == "code" else cell.get("outputs", [])
    if not isinstance(outputs, list):
        raise TypeError("outputs: expected a list")
    for output in outputs:
        if output["output_type"] == "stream" or "text" in output:
            output["text"] = joined(output["text"])
        data = output.get("data", {})
        for kind, value in data.items():
            data[kind] = joined(value) if kind.startswith("text/") else value


def joined(text: str | list[str]) -> str:
    return text if isinstance(text, str) else "".join(text)


def code_cells(notebook: dict) -> list[dict]:
    """Its code cells that are not empty."""
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code" and cell["source"].strip()]


def text_of(notebook: dict) -> str:
    """In the form JupyterLab saves, so that saving an unchanged notebook changes nothing."""

    def cell_lines(cell: dict) -> dict:
        outputs = {"outputs": [output_lines(output) for output in cell["outputs"]]} if "outputs" in cell else {}
        return cell | {"source": cell["source"].splitlines(True)} | outputs

    def output_lines(output: dict) -> dict:
        if "text" in output:
            return output | {"text": output["text"].splitlines(True)}
        data = {k: v.splitlines(True) if isinstance(v, str) else v for k, v in output.get("data", {}).items()}
        return output | {"data": data} if data else output

    lines = notebook | {"cells": [cell_lines(cell) for cell in notebook["cells"]]}
    return json.dumps(lines, indent=1, ensure_ascii=False, sort_keys=True) + "\n"


def normalised(notebook: dict) -> dict:
    """Ids numbered, metadata reduced to what Jupyter needs and to tags."""
    for number, cell in enumerate(notebook["cells"]):
        tags = cell["metadata"].get("tags")
        cell["id"], cell["metadata"] = f"cell-{number:02d}", {"tags": tags} if tags else {}
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": notebook["cells"], "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def cleaned(notebook: dict) -> dict:
    """As committed: no outputs, no counts."""
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None
    return normalised(notebook)


def scrubbed(notebook: dict) -> dict:
    """As a run leaves it, without what differs from run to run: stderr (progress, warnings), widgets, addresses."""
    for cell in notebook["cells"]:
        if cell["cell_type"] != "code":
            continue
        kept: list[dict] = []
        for output in cell["outputs"]:
            data = output.get("data", {})
            if output.get("name") == "stderr" or "application/vnd.jupyter.widget-view+json" in data:
                continue
            for kind, value in data.items():
                if kind.startswith("text/"):
                    data[kind] = ADDRESS.sub("at 0x0", value)
            # Where one piece of printed text ends and the next begins is chance.
            if output["output_type"] == "stream" and kept and kept[-1]["output_type"] == "stream":
                kept[-1]["text"] += output["text"]
            else:
                kept.append(output)
        for output in kept:
            if output["output_type"] == "stream":
                output["text"] = ADDRESS.sub("at 0x0", without_overwritten(output["text"]))
        cell["outputs"] = kept
    return normalised(notebook)


def without_overwritten(text: str) -> str:
    """Of every line what a terminal would show in the end: the part behind its last carriage return."""
    *lines, last = text.split("\n")
    kept = []
    for line in lines:
        end = "\r" if line.endswith("\r") else ""  # the line ends in "\r\n"
        body = line.removesuffix("\r")
        kept.append(body[body.rfind("\r") + 1 :] + end)
    return "\n".join([*kept, last[last.rfind("\r") + 1 :]])
