"""params.yaml -> frozen dataclasses, strictly: an unknown, missing or mistyped key, or a value out of range, is one clear line.

`load_params("pyramid")` gives the section of the chosen profile.
"""

import json
import types
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from hkd_core.common.errors import UserError
from hkd_core.common.root import find_root

DISTORTIONS = ("noise", "blur", "patches", "blank", "alike", "least", "shuffled", "none")
DIVERGENCES = ("forward_kl", "reverse_kl", "jsd", "skewed_forward_kl", "skewed_reverse_kl")

Check = tuple[str, Callable[[Any], bool]]
POSITIVE: Check = ("a number above 0", lambda v: v > 0)
COUNT: Check = ("a whole number of at least 1", lambda v: v >= 1)
NATURAL: Check = ("0 or more", lambda v: v >= 0)
SHARE: Check = ("a number from 0 to 1", lambda v: 0 <= v <= 1)
COUNTS: Check = ("whole numbers of at least 1", lambda v: all(x >= 1 for x in v))
EACH_COUNT: Check = ("whole numbers of at least 1", lambda v: all(x >= 1 for x in v.values()))
ALPHAS: Check = ("numbers of at least 0", lambda v: bool(v) and min(v) >= 0)
BETAS: Check = ("numbers from 0 to 1", lambda v: bool(v) and all(0 <= x <= 1 for x in v))
KIND: Check = ("one of " + ", ".join(DIVERGENCES), lambda v: v in DIVERGENCES)


def key(check: Check | None = None, default: Any = MISSING) -> Any:
    """A setting with what is expected of its value; without a default it must be given."""
    extra = {} if default is MISSING else {"default": default}
    return field(metadata={"check": check}, **extra)


def _sizes(v: tuple) -> bool:
    return len(v) == 2 and 1 <= v[0] <= v[1] <= 16


def _distortions(v: tuple) -> bool:
    return bool(v) and all(len(d) == 2 and d[0] in DISTORTIONS and d[1] >= 0 for d in v)


@dataclass(frozen=True)
class Data:
    train: int = key(COUNT)
    labelled: int = key(COUNT)
    tuned: int = key(COUNT)
    val: int = key(COUNT)
    test: int = key(COUNT)
    sizes: tuple[int, ...] = key(("[smallest, largest] side in pixels, from 1 to 16", _sizes))
    noise: float = key(SHARE)
    pope_images: int = key(COUNT)


@dataclass(frozen=True)
class Augment:
    examples: int = key(COUNT)
    images: tuple[str, ...] = key()
    texts: tuple[str, ...] = key(("at least one augmentation", bool))


@dataclass(frozen=True)
class BaseModels:
    widths: dict[str, int] = key(("multiples of 16, at least 32", lambda v: all(x >= 32 and x % 16 == 0 for x in v.values())))
    layers: dict[str, int] = key(EACH_COUNT)
    vision_width: int = key(COUNT)
    vision_layers: int = key(COUNT)
    scenes: int = key(COUNT)
    rapid_steps: dict[str, int] = key(EACH_COUNT)
    rapid_loss: float = key(POSITIVE)
    spoken_steps: dict[str, int] = key(EACH_COUNT)
    sight_steps: int = key(COUNT)
    align_steps: int = key(COUNT)
    clean_steps: int = key(COUNT)
    biased_steps: int = key(COUNT)
    bias_popular: float = key(SHARE)
    bias_rare: float = key(SHARE)
    bias_captions: float = key(SHARE)


@dataclass(frozen=True)
class Supervised:
    steps: int = key(COUNT)
    long_steps: int = key(COUNT)
    batch_size: int = key(COUNT)
    learning_rate: float = key(POSITIVE)
    kd_kind: str = key(KIND)
    kd_temperature: float = key(POSITIVE)
    kd_weight: float = key(SHARE)


@dataclass(frozen=True)
class Pyramid:
    levels: tuple[tuple[str, ...], ...] = key()
    steps: int = key(COUNT)
    batch_size: int = key(COUNT)
    learning_rate: float = key(POSITIVE)
    kind: str = key(KIND)
    beta: float = key(SHARE)
    temperature: float = key(POSITIVE)
    final_temperature: float = key(POSITIVE)
    down: float = key(NATURAL)
    feedback: float = key(NATURAL)
    peers: float = key(NATURAL)
    augmented: bool = key()
    unlabelled: int = key(NATURAL)


@dataclass(frozen=True)
class Ternary:
    steps: int = key(COUNT)
    batch_size: int = key(COUNT)
    learning_rate: float = key(POSITIVE)
    kind: str = key(KIND)
    beta: float = key(SHARE)
    temperature: float = key(POSITIVE)
    labels: float = key(NATURAL)
    teacher: float = key(NATURAL)
    assistant: float = key(NATURAL)
    itself: float = key(NATURAL)
    relations: float = key(NATURAL)
    hidden: float = key(NATURAL)
    gate: bool = key()
    shifted: bool = key()
    augmented: bool = key()
    unlabelled: int = key(NATURAL)


@dataclass(frozen=True)
class SelfEvolution:
    model: str = key()
    pictures: int = key(COUNT)
    questions: int = key(COUNT)
    captions: int = key(COUNT)
    steps: int = key(COUNT)
    caption_steps: int = key(COUNT)
    batch_size: int = key(COUNT)
    learning_rate: float = key(POSITIVE)
    rank: int = key(COUNT)
    layers: int = key(COUNT)
    full_rate: float = key(POSITIVE)
    rounds: int = key(COUNT)
    divergence: str = key(KIND)
    distortions: tuple[tuple[str, float] | tuple[str, int], ...] = key(
        (f"a list of [kind, strength], kind one of {', '.join(DISTORTIONS)}", _distortions)
    )
    alphas: tuple[float, ...] = key(ALPHAS)
    text_alphas: tuple[float, ...] = key(ALPHAS)
    gammas: tuple[float, ...] = key(ALPHAS)
    cutoffs: tuple[float, ...] = key(BETAS)
    text_cutoff: float = key(SHARE)
    anchor_weight: float = key(NATURAL)
    epsilon: float = key(("a number above 0 and below 1", lambda v: 0 < v < 1))

    def model_dump(self) -> dict:
        return dict(vars(self))


@dataclass(frozen=True)
class Evaluate:
    caption_images: int = key(COUNT)
    bootstrap: int = key(COUNT)
    max_new_tokens: int = key(COUNT)


@dataclass(frozen=True)
class Ablations:
    labels: tuple[int, ...] = key(COUNTS)
    variants: tuple[str, ...] = key()


STAGES = {
    "data": Data,
    "augment": Augment,
    "base_models": BaseModels,
    "supervised": Supervised,
    "pyramid": Pyramid,
    "ternary": Ternary,
    "self_evolution": SelfEvolution,
    "evaluate": Evaluate,
    "ablations": Ablations,
}


def read_params(path: Path | None = None) -> dict:
    """params.yaml as it is written. Raises UserError naming the file, and the line of a syntax error."""
    path = path or find_root() / "params.yaml"
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"{path.name}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path.name}{line}: not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(content, dict) or not isinstance(content.get("profiles"), dict):
        raise UserError(f"{path.name}: expected the keys profile, seed and profiles")
    unknown = set(content) - {"profile", "seed", "profiles"}
    if unknown:
        raise UserError(f"{path.name}: {min(unknown)}: unknown key; expected profile, seed and profiles")
    return content


def load_seed(seed: int | None = None, path: Path | None = None) -> int:
    """`seed`, or params.yaml's if it is None."""
    value = read_params(path).get("seed") if seed is None else seed
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise UserError(f"params.yaml: seed: expected a whole number of at least 0, got {value!r}")
    return value


def chosen_profile(path: Path | None = None) -> str:
    """The profile that params.yaml chooses. Raises UserError where it is not the name of one."""
    content = read_params(path)
    chosen = content.get("profile")
    if not isinstance(chosen, str) or chosen not in content["profiles"]:
        raise UserError(f'params.yaml: profile: expected one of {", ".join(content["profiles"])}, got {_show(chosen)}')
    return chosen


def load_params(stage: str, *, profile: str | None = None, path: Path | None = None, **overrides: Any) -> Any:
    """The settings of one stage, checked. `overrides` replace keys, as `-S` does for the file.

    Raises UserError naming the key and what was expected of it.
    """
    content = read_params(path)
    if stage not in STAGES:
        raise UserError(f'unknown stage "{stage}"; expected one of {", ".join(STAGES)}')
    chosen = profile or content.get("profile")
    section = _section(content["profiles"], chosen, stage)
    where = f"params.yaml: profiles.{chosen}.{stage}"
    return build(STAGES[stage], section | overrides, where)


def _section(profiles: dict, chosen: Any, stage: str) -> dict:
    if chosen not in profiles:
        raise UserError(f'params.yaml: profile: expected one of {", ".join(profiles)}, got "{chosen}"')
    profile = profiles[chosen] or {}
    unknown = set(profile) - set(STAGES) - {"needs"}
    if unknown:
        raise UserError(f"params.yaml: profiles.{chosen}.{min(unknown)}: unknown key; expected {', '.join(STAGES)}")
    if "needs" in profile:
        raise UserError(f"profile {chosen}: not ready to run: {profile['needs']}")
    section = profile.get(stage)
    if not isinstance(section, dict):
        raise UserError(f"params.yaml: profiles.{chosen}.{stage}: expected keys and values, got {section!r}")
    return section


def build(kind: type, values: dict, where: str) -> Any:
    """A dataclass from plain values, every key checked for name, type and range."""
    hints, known = get_type_hints(kind), {f.name: f for f in fields(kind)}
    for name in values:
        if name not in known:
            raise UserError(f"{where}.{name}: unknown key; expected one of {', '.join(known)}")
    checked = {}
    for name, one in known.items():
        if name not in values:
            if one.default is MISSING:
                raise UserError(f"{where}.{name}: missing; expected {_words(hints[name])}")
            continue
        value = _convert(values[name], hints[name])
        if value is _WRONG:
            raise UserError(f"{where}.{name}: expected {_words(hints[name])}, got {_show(values[name])}")
        check = one.metadata.get("check")
        if check and not check[1](value):
            raise UserError(f"{where}.{name}: expected {check[0]}, got {_show(values[name])}")
        checked[name] = value
    if checked.get("kind") == "jsd" and checked.get("beta") in (0.0, 1.0):
        raise UserError(
            f"{where}.beta: expected a number between 0 and 1 for jsd, which is 0 for every pair at both, got {checked['beta']}"
        )
    if str(checked.get("kind")).startswith("skewed_") and checked.get("beta") == 1.0:
        raise UserError(f"{where}.beta: expected a number below 1 for {checked['kind']}, which is 0 for every pair there, got 1.0")
    return kind(**checked)


_WRONG = object()


def _convert(value: Any, hint: Any) -> Any:
    """`value` as the hinted type (lists become tuples, whole numbers floats), or _WRONG."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return next((v for v in (_convert(value, a) for a in arguments) if v is not _WRONG), _WRONG)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            return _WRONG
        kinds = [arguments[0]] * len(value) if arguments[-1] is Ellipsis else list(arguments)
        if len(kinds) != len(value):
            return _WRONG
        found = [_convert(v, k) for v, k in zip(value, kinds, strict=True)]
        return _WRONG if _WRONG in found else tuple(found)
    if origin is dict:
        if not isinstance(value, dict) or not value:
            return _WRONG
        found = {k: _convert(v, arguments[1]) for k, v in value.items()}
        return _WRONG if _WRONG in found.values() or not all(isinstance(k, str) for k in found) else found
    if isinstance(value, bool) or hint is bool:
        return value if isinstance(value, bool) and hint is bool else _WRONG
    if hint is float and isinstance(value, int):
        return float(value)
    return value if isinstance(value, hint) else _WRONG


def _words(hint: Any) -> str:
    """A type in words."""
    simple = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
    if hint in simple:
        return simple[hint]
    return "keys and whole numbers" if get_origin(hint) is dict else "a list"


def _show(value: Any) -> str:
    """A value as it stands in params.yaml."""
    return json.dumps(value) if isinstance(value, (str, bool)) else str(value)
