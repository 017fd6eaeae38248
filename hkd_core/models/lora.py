"""A peft adapter (a LoRA) from a folder or the hub: its settings and weights are checked, then peft puts it on a model."""

import math
import shlex
from collections.abc import Callable
from pathlib import Path

from torch import nn

from hkd_core.common.errors import UserError
from hkd_core.models.checkpoints import Find, check_filled, read_object, read_tensors

LORA_CONFIG, LORA_WEIGHTS, LORA_PICKLE = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
Fits = Callable[[object], bool]


def a_number(low: float, high: float = math.inf, *, whole: bool = False) -> tuple[Fits, str]:
    kind = "whole number" if whole else "number"
    fits = lambda x: isinstance(x, int if whole else int | float) and not isinstance(x, bool) and low <= x <= high and x < math.inf  # noqa: E731
    return fits, f"a {kind} of at least {low}" if high == math.inf else f"a {kind} from {low} to {high}"


def is_names(value: object) -> bool:
    return value is None or isinstance(value, str) or (isinstance(value, list) and all(isinstance(x, str) for x in value))


def is_places(value: object) -> bool:
    return value is None or all(isinstance(x, int) for x in (value if isinstance(value, list) else [value]))


NAMES = (is_names, "a name, a list of names or null")
FLAG = (lambda value: isinstance(value, bool), "true or false")
TABLE = (lambda value: value is None or isinstance(value, dict), "an object")
# peft itself reads these without a look at their types.
LORA_SETTINGS: dict[str, tuple[Fits, str]] = {
    "r": a_number(1, whole=True),
    "lora_alpha": a_number(0),
    "lora_dropout": a_number(0, 1),
    "bias": (lambda value: value in ("none", "all", "lora_only"), '"none", "all" or "lora_only"'),
    "init_lora_weights": (lambda value: value is None or isinstance(value, bool | str), "true, false or a name"),
    "layers_to_transform": (is_places, "a whole number, a list of them or null"),
    **dict.fromkeys(
        ("target_modules", "exclude_modules", "modules_to_save", "layers_pattern", "target_parameters", "task_type"), NAMES
    ),
    **dict.fromkeys(("fan_in_fan_out", "use_rslora", "use_dora", "lora_bias"), FLAG),
    **dict.fromkeys(("rank_pattern", "alpha_pattern", "auto_mapping"), TABLE),
}


def with_lora(model: nn.Module, where: str, find: Find) -> nn.Module:
    """`model` with the adapter that `find` finds. Raises UserError as `check_lora` does, and for tensors too few or too many."""
    from peft import PeftConfig, get_peft_model, get_peft_model_state_dict

    folder = check_lora(where, find)
    config = PeftConfig.from_pretrained(str(folder))
    config.inference_mode = True
    device, renamed = next(model.parameters()).device, getattr(model, "_checkpoint_conversion_mapping", {})
    made_for = (config.auto_mapping or {}).get("base_model_class", type(model).__name__)
    if made_for != type(model).__name__:
        raise UserError(f"{folder / LORA_CONFIG}: made for a {made_for}, the model is a {type(model).__name__}")
    wrapped = get_peft_model(model, config)
    described = {name: tensor.shape for name, tensor in get_peft_model_state_dict(wrapped, save_embedding_layers=False).items()}
    found = {name: tensor.shape for name, tensor in read_tensors(folder / LORA_WEIGHTS).items()}
    shapes = [(name, found[name], shape) for name, shape in described.items() if found.get(name, shape) != shape]
    check_filled(where, [], [], shapes, LORA_CONFIG)
    report = wrapped.load_adapter(str(folder), "default", torch_device=str(device), key_mapping=renamed)
    missing = [name.replace(".default", "") for name in report.missing_keys]  # as the file spells them
    check_filled(where, missing, report.unexpected_keys, [], LORA_CONFIG)
    return wrapped.eval()


def check_lora(where: str, find: Find) -> Path:
    """The folder of a peft adapter, after a look at its settings and weights.

    Raises UserError: no adapter, a setting of the wrong type or one that would import code, a pickle.
    """
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    path = find(LORA_CONFIG)
    if path is None:
        raise UserError(f"{where}: no adapter here: expected a folder with hea_config.json or {LORA_CONFIG}")
    config = read_object(path)
    if not (isinstance(config.get("peft_type"), str) and config["peft_type"] in PEFT_TYPE_TO_CONFIG_MAPPING):
        raise UserError(f'{path}: peft_type: expected a name that peft knows, such as "LORA", got {config.get("peft_type")!r}')
    if config.get("megatron_config") is not None:  # peft would import the module that megatron_core names
        raise UserError(f"{path}: megatron_config: expected null, got an adapter for Megatron")
    for key, (fits, expected) in LORA_SETTINGS.items() if config["peft_type"] == "LORA" else ():
        if key in config and not fits(config[key]):
            raise UserError(f"{path}: {key}: expected {expected}, got {str(config[key])[:80]!r}")
    weights = find(LORA_WEIGHTS)
    if weights is None and (pickle := find(LORA_PICKLE)):
        code = (
            f"import torch; from safetensors.torch import save_file as s; "
            f"s(torch.load({str(pickle)!r}, 'cpu', weights_only=True), {str(pickle.parent / LORA_WEIGHTS)!r})"
        )
        raise UserError(
            f"{pickle}: a pickle, which can run code: expected safetensors; "
            f"if you trust it, convert it: python -c {shlex.quote(code)}"
        )
    return path.parent
