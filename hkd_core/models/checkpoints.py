"""What a checkpoint holds: checked before anything is loaded, and after loading, tensor by tensor.

A checkpoint is a file from elsewhere. Nothing here runs its code or unpickles it, and every fault is one UserError line.
"""

import math
import os
import shlex
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from transformers import CONFIG_MAPPING, dynamic_module_utils
from transformers.utils import logging as transformers_logging
from transformers.utils.hub import cached_file

from hkd_core.common.errors import UserError
from hkd_core.common.files import read_json
from hkd_core.models.families import REFUSED

Find = Callable[[str], Path | None]  # a file's name in a checkpoint -> where it lies, None if the checkpoint has none

CONFIG, WEIGHTS, INDEX = "config.json", "model.safetensors", "model.safetensors.index.json"
SETTINGS = (
    CONFIG,
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
)
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
PICKLES = ("*.bin", "*.bin.index.json", "*.pt", "*.pth", "*.ckpt")
INTERNVL = (
    "in InternVL's first format, which only its repository's code can load: expected a checkpoint whose name ends in -hf; "
    "InternVL2-8B has none: the nearest of its size is OpenGVLab/InternVL3-8B-hf, "
    "the nearest with its kind of language model is OpenGVLab/InternVL2_5-2B-MPO-hf"
)


def why_not(error: Exception) -> str:
    """One line on what a model or processor lacks: the package to install, or the first line of what the library says."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    for package in ("torchvision", "num2words") if isinstance(error, ImportError | RuntimeError) else ():
        if package in str(error).lower():
            return f"its processor needs the package {package}, which is missing or does not fit this torch: pip install -e '.[vlm]', see CONTRIBUTING.md"
    if "cannot be loaded with `safetensors`" in str(error):
        return f"it has no {WEIGHTS}, and a pickle can run code; if you trust it, download it: its folder's error says how to convert it"
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    named = isinstance(error, OSError | ValueError | ImportError | RuntimeError | SafetensorError)
    text = text if named or text.startswith(("Validation", "Class validation")) else f"{type(error).__name__}: {text}"
    return text if len(text) <= 400 else f"{text[:400]}..."


@contextmanager
def refusing(where: object, what: str) -> Iterator[None]:
    """Whatever a library raises over a file from elsewhere becomes one UserError line; meanwhile nothing asks on stdin.

    transformers asks there whether to run a repository's code, wherever `trust_remote_code` does not reach it.
    """
    patience, verbosity = dynamic_module_utils.TIME_OUT_REMOTE_CODE, transformers_logging.get_verbosity()
    dynamic_module_utils.TIME_OUT_REMOTE_CODE = 0
    transformers_logging.set_verbosity_error()  # its reports of missing tensors are tables
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # parsers of three libraries, on arbitrary files: any kind
        raise UserError(f"{where}: {what}: {why_not(error)}") from error
    finally:
        dynamic_module_utils.TIME_OUT_REMOTE_CODE = patience
        transformers_logging.set_verbosity(verbosity)


def looks_local(where: str) -> bool:
    """Whether a name means a folder, even one that is not there, and no repository of the hub."""
    return where.startswith((".", "/", "~", "models")) or Path(where).exists()


def finder(where: str, revision: str | None = None) -> Find:
    """Finds files in a folder, or else in a repository of the Hugging Face hub (or its cache)."""
    if looks_local(where):
        return lambda name: path if (path := Path(where) / name).is_file() else None

    def fetch(name: str) -> Path | None:
        quiet = {"_raise_exceptions_for_missing_entries": False, "_raise_exceptions_for_connection_errors": False}
        try:
            found = cached_file(where, name, revision=revision, **({} if name == CONFIG else quiet))
        except (OSError, ValueError) as error:
            offline = " (HF_HUB_OFFLINE is set)" if os.environ.get("HF_HUB_OFFLINE") else ""
            expected = "expected a folder with config.json or the id of a model on the Hugging Face hub"
            raise UserError(f"{where}: no model here: {expected}{offline}: {why_not(error)}") from error
        return None if found is None else Path(found)

    return fetch


def read_object(path: Path) -> dict:
    """A JSON file's object. Raises UserError naming the file if it holds anything else."""
    with refusing(path, "cannot be read"):
        value = read_json(path)
    if not isinstance(value, dict):
        raise UserError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def some(names: Iterable[str], most: int = 3) -> str:
    """The first few names, and how many more there are."""
    found = sorted(names)
    return ", ".join(found[:most]) + (f" and {len(found) - most} more" if len(found) > most else "")


def check_checkpoint(where: str, find: Find, *, trusted: bool) -> None:
    """What a model's checkpoint shows without being loaded: its settings, whose code it needs, its weights' files.

    Raises UserError for no config.json, settings that are not JSON objects, and code nobody asked to run. It also does for pickles,
    a damaged file, a missing part or processor, and an adapter inside.
    """
    if not Path(where).exists() and Path(where).name.lower().startswith("internvl2-"):
        raise UserError(f"{where}: {INTERNVL}")
    settings = {name: read_object(path) for name in SETTINGS if (path := find(name))}
    if CONFIG not in settings:
        raise UserError(f"{where}: no model here: expected a folder with config.json")
    config = settings[CONFIG]
    if config.get("model_type") == "internvl_chat":
        raise UserError(f"{where}: {INTERNVL}")
    if not isinstance(config.get("model_type"), str):
        raise UserError(f"{where}/config.json: model_type: expected the name of a model family, got {config.get('model_type')!r}")
    if config["model_type"] in REFUSED:
        raise UserError(f"{where}/config.json: model_type: {config['model_type']} is not supported: {REFUSED[config['model_type']]}")
    if config.get("auto_map") and config["model_type"] not in CONFIG_MAPPING and not trusted:
        raise UserError(
            f"{where}/config.json: auto_map: its family {config['model_type']!r} needs the repository's own code, "
            "which is not run: read it, then pass trust_remote_code=True"
        )
    if find("adapter_config.json"):
        raise UserError(
            f"{where}: holds an adapter (adapter_config.json) beside the model: put it into its own folder, pass adapter="
        )
    if not any(name in settings for name in PROCESSOR_FILES):
        raise UserError(f"{where}: weights without a processor: expected {' or '.join(PROCESSOR_FILES)}")
    if not any(map(find, TOKENIZER_FILES)):
        raise UserError(f"{where}: a processor without a tokenizer: expected tokenizer.json, or another family's vocabulary file")
    check_weight_files(where, find, config)


def check_weight_files(where: str, find: Find, config: dict) -> None:
    """The weights are safetensors, whole, and every part that the index names is there. A hub's parts are not fetched for this."""
    named = config.get("transformers_weights")
    if named is not None and not (isinstance(named, str) and named.endswith((".safetensors", ".safetensors.index.json"))):
        raise UserError(f"{where}/config.json: transformers_weights: expected a safetensors file, got {named!r}")
    local = Path(where).is_dir()
    single, index = (find(named), None) if named and named.endswith(".safetensors") else (None, find(named or INDEX))
    single = single or (find(WEIGHTS) if local and not named else None)
    if single:
        tensor_names(single)
    elif index:
        check_parts(where, index, local=local)
    elif local:
        raise UserError(f"{where}: {no_safetensors(Path(where))}")


def no_safetensors(folder: Path) -> str:
    """What to say of a folder without safetensors: how to convert a pickle, if it has one."""
    pickles = sorted(path.name for pattern in PICKLES for path in folder.glob(pattern))
    if not pickles:
        return f"no weights here: expected {WEIGHTS} or {INDEX}"
    code = (
        f"from transformers import AutoModelForImageTextToText as A; "
        f"A.from_pretrained({str(folder)!r}, use_safetensors=False).save_pretrained({str(folder)!r})"
    )
    command = f"python -c {shlex.quote(code)}"
    return (
        f"its weights are a pickle ({pickles[0]}), which can run code: expected safetensors; if you trust it, convert it: {command}"
    )


def check_parts(where: str, index: Path, *, local: bool) -> None:
    """An index of parts: a map from tensors to safetensors files beside it, all there, each with its tensors."""
    parts = read_object(index).get("weight_map")
    if not isinstance(parts, dict) or not parts or not all(isinstance(part, str) for part in parts.values()):
        raise UserError(f"{index}: weight_map: expected an object from tensors to files")
    files = sorted(set(parts.values()))
    for file in files:
        if not file.endswith(".safetensors") or Path(file).name != file or "\\" in file:
            raise UserError(f"{index}: expected the names of safetensors files beside it, got {file!r}")
    if not local:
        return
    lacking = [file for file in files if not (index.parent / file).is_file()]
    if lacking:
        raise UserError(f"{where}: {len(lacking)} of {len(files)} parts of the weights are missing: {some(lacking)}")
    for file in files:
        promised = {name for name, part in parts.items() if part == file}
        lost = promised - tensor_names(index.parent / file)
        if lost:
            raise UserError(f"{index.parent / file}: lacks {counted(lost)} that {index.name} places there: {some(lost)}")


def tensor_names(path: Path) -> set[str]:
    """The names in a safetensors file. Raises UserError naming it if it is empty, cut off or no such file."""
    with refusing(path, "not a whole safetensors file"), safe_open(path, "pt") as file:
        names = set(file.keys())
    if not names:
        raise UserError(f"{path}: holds no tensors")
    return names


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a small safetensors file. Raises UserError naming it if it is missing, damaged, or has values that are not finite."""
    if not path.is_file():
        raise UserError(f"{path.parent}: no weights here: expected {path.name}")
    names = tensor_names(path)
    with refusing(path, "cannot be read"), safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in sorted(names)}
    check_finite(path, not_finite(tensors.items()))
    return tensors


def counted(names: Iterable[object]) -> str:
    number = len(list(names))
    return f"{number} tensor{'' if number == 1 else 's'}"


def check_filled(
    where: object, missing: Iterable[str], unexpected: Iterable[str], shapes: Iterable[tuple], described: str = CONFIG
) -> None:
    """Refuse weights that are not exactly what the config describes: a tensor left out would keep random numbers.

    shapes: (name, shape in the file, shape expected) for each tensor of another shape.
    """
    missing, unexpected, shapes = set(missing), set(unexpected), sorted(shapes)
    if shapes:
        name, found, expected = shapes[0]
        raise UserError(
            f"{where}: {counted(shapes)} not of the shape that {described} describes: {name} is {list(found)}, "
            f"expected {list(expected)}{f', and {len(shapes) - 1} more' if len(shapes) > 1 else ''}"
        )
    if missing:
        raise UserError(f"{where}: its weights lack {counted(missing)} that {described} describes: {some(missing)}")
    if unexpected:
        raise UserError(f"{where}: its weights hold {counted(unexpected)} that {described} does not describe: {some(unexpected)}")


def not_finite(tensors: Iterable[tuple[str, Tensor]]) -> list[str]:
    """Names of tensors with NaN or infinity. One pass over each on its device; 13 billion in bf16 take a few seconds on a CPU.

    Quantised (integer) tensors, and ones that accelerate left on disk (meta), are not looked at.
    """
    bad, seen = [], set()
    for name, tensor in tensors:
        if tensor.is_meta or not tensor.is_floating_point() or not tensor.numel() or tensor.data_ptr() in seen:
            continue
        seen.add(tensor.data_ptr())  # tied weights count once
        ends = torch.aminmax(tensor if tensor.itemsize > 1 else tensor.float())  # NaN goes through to both
        if not all(math.isfinite(end) for end in ends):
            bad.append(name)
    return bad


def check_finite(where: object, bad: Iterable[str]) -> None:
    """Refuse the tensors that `not_finite` found."""
    if bad := list(bad):
        raise UserError(f"{where}: NaN or infinite values in {counted(bad)}: {some(bad)}; expected finite weights")


def in_file(model: Any, names: Iterable[str]) -> list[str]:
    """A model's names of tensors, spelled as the files of its family spell them, where transformers can tell; as many as there were."""
    names = sorted(names)
    try:
        from transformers.core_model_loading import revert_weight_conversion

        spelled = list(revert_weight_conversion(model, {name: torch.empty(0) for name in names}))
    except Exception:  # several tensors of the file make one of the model's
        return names
    return spelled if len(spelled) == len(names) else names
