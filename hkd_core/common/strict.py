"""Strict settings by pydantic, with errors of one line: which key, what was expected, what stands there.

What was expected is read off the type and its limits, so the text can never differ from the check.
"""

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, Literal, Self, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator
from pydantic.fields import FieldInfo

from hkd_core.common.errors import UserError

DEEPEST = 6  # levels of lists and keys in params.yaml; a reference of YAML to itself would nest without end


class Strict(BaseModel):
    """Settings that are never converted, never changed, and have no unknown keys; infinities and NaN are refused.

    Lists become tuples. Raises UserError that names the first wrong key.
    """

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    def __init__(self, **values: Any):
        where = f"{type(self).__name__}."
        with one_line(type(self), where):
            super().__init__(**plain(values, where))

    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]  # or pydantic calls it for sections within sections, too

    def contradictions(self) -> Iterator[tuple[str, str, Any]]:
        """(key, what was expected of it, its value) for settings that are valid one by one but not together."""
        yield from ()

    def replace(self, **changes: Any) -> Self:
        """A copy with some keys changed, checked anew. Raises UserError. `model_copy` would check nothing."""
        return build(type(self), self.model_dump() | changes, f"{type(self).__name__}.")

    @model_validator(mode="after")
    def _agree(self) -> Self:
        for key, expected, value in self.contradictions():
            raise ValueError(f"{key}: expected {expected}, got {show(value)}")
        return self


Section = TypeVar("Section", bound=Strict)


def build(section: type[Section], values: Any, where: str) -> Section:
    """A `section` from plain values. Raises UserError as `one_line` does."""
    with one_line(section, where):
        found = section.model_validate(plain(values, where))
    return found


@contextmanager
def one_line(section: type[Strict], where: str) -> Iterator[None]:
    """Turns pydantic's error into a UserError that begins with `where` and names the first wrong key, unknown keys first."""
    try:
        yield
    except ValidationError as error:
        found = sorted(error.errors(include_url=False), key=lambda one: one["type"] != "extra_forbidden")
        raise UserError(where + _line(section, found[0])) from None


def plain(value: Any, where: str, depth: int = 0) -> Any:
    """`value` with tuples for lists, as strict settings want them.

    Raises UserError for a key that is not text, and for nesting deeper than DEEPEST.
    """
    if depth > DEEPEST:
        raise UserError(f"{where.rstrip('.: ')}: expected settings, got lists or keys nested more than {DEEPEST} deep")
    if isinstance(value, list | tuple):
        return tuple(plain(one, where, depth + 1) for one in value)
    if not isinstance(value, dict):
        return value
    for key in value:
        if not isinstance(key, str):
            raise UserError(f"{where}{show(key)}: expected a key that is text, got {show(key)}")
    return {key: plain(one, f"{where}{_name(key)}.", depth + 1) for key, one in value.items()}


def _line(section: type[Strict], error: Any) -> str:
    """One of pydantic's errors as `key: expected ..., got ...`."""
    place = error["loc"]
    if error["type"] == "missing" and isinstance(place[-1], int):  # too short a list: say so of the list
        place = place[:-1]
    path = "".join(f"[{step}]" if isinstance(step, int) else f".{_name(step)}" for step in place).removeprefix(".")
    if error["type"] == "value_error":
        return ".".join(filter(None, [path, str(error["ctx"]["error"])]))
    if error["type"] == "extra_forbidden":
        owner: Any = section
        for step in place[:-1]:
            owner = _inner(owner, step)
        return f"{path}: unknown key; expected one of {', '.join(owner.model_fields)}"
    owner, expected = section, "keys and values"
    for step in place:
        at_field = isinstance(owner, type) and issubclass(owner, Strict)
        expected = expected_of(owner, step) if at_field else words(_inner(owner, step))
        owner = _inner(owner, step)
    if error["type"] == "missing" and place == error["loc"]:
        return f"{path}: missing; expected {expected}"
    return f"{path}: expected {expected}, got {show(error['input'])}"


def _bare(hint: Any) -> Any:
    return get_args(hint)[0] if get_origin(hint) is Annotated else hint


def _inner(hint: Any, step: int | str) -> Any:
    """The type one step further in: of a model's key, a dict's value, a list's item."""
    hint = _bare(hint)
    if isinstance(hint, type) and issubclass(hint, Strict):
        return get_type_hints(hint, include_extras=True)[str(step)]
    arguments = get_args(hint)
    return (
        arguments[step]
        if isinstance(step, int) and arguments[-1] is not Ellipsis
        else arguments[-1 if isinstance(step, str) else 0]
    )


def expected_of(section: type[Strict], name: str) -> str:
    """What a setting's value must be, in words: its own, or its type's."""
    about: Any = section.model_fields[name].json_schema_extra or {}
    return about.get("expected") or words(get_type_hints(section, include_extras=True)[name])


def check_complete(section: Strict, where: str) -> None:
    """Raises UserError for a key that was left to its default. A file gives every key, so that nothing else need be read."""
    for name in type(section).model_fields:
        if name not in section.model_fields_set:
            raise UserError(f"{where}{name}: missing; expected {expected_of(type(section), name)}")


def words(hint: Any) -> str:
    """A type and its limits in words: "a whole number of at least 1", "a list, each item a number from 0 to 1"."""
    limits: dict[str, Any] = {}
    if get_origin(hint) is Annotated:
        hint, *extras = get_args(hint)
        for limit in (limit for extra in extras if isinstance(extra, FieldInfo) for limit in extra.metadata):
            limits |= {
                name: getattr(limit, name) for name in ("ge", "gt", "le", "lt", "multiple_of", "min_length") if hasattr(limit, name)
            }
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin is dict:
        return f"names and values, each {words(arguments[1])}"
    if origin is tuple and arguments[-1] is Ellipsis:
        return f"a list{' that is not empty' if limits else ''}, each item {words(arguments[0])}"
    if origin is tuple:
        return f"a list of {len(arguments)}: {' and '.join(map(words, arguments))}"
    text = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}.get(hint, "keys and values")
    low, high = limits.get("ge"), limits.get("le")
    if low is not None and high is not None:
        text += f" from {low} to {high}"
    else:
        signs = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
        bounds = " and ".join(f"{sign} {limits[name]}" for name, sign in signs.items() if name in limits)
        text += f" {bounds}" if bounds else ""
    return text + (f", a multiple of {limits['multiple_of']}" if "multiple_of" in limits else "")


def _name(key: str) -> str:
    """A key as it stands in a path: as it is, or quoted where it would not read as one word."""
    return key if len(key) < 100 and key.replace("_", "").replace("-", "").isalnum() else show(key)


def show(value: Any, longest: int = 100) -> str:
    """A value as it could stand in params.yaml, on one line, cut after `longest` characters."""
    if isinstance(value, dict | list | tuple):
        pairs = value.items() if isinstance(value, dict) else (("", one) for one in value)
        text, comma = "", ""
        for key, one in pairs:
            text += comma + (f"{_name(str(key))}: " if key else "") + show(one, longest)
            comma = ", "
            if len(text) > longest:
                break
        text = f"{{{text}}}" if isinstance(value, dict) else f"[{text}]"
    elif isinstance(value, float) and not math.isfinite(value):
        text = ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    elif isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        text = f"{value:.1f}"
    elif isinstance(value, int) and abs(value) >= 10**longest:
        text = f"a number of more than {longest} digits"
    else:
        text = json.dumps(value, default=str)
    return text if len(text) <= longest else text[: longest - 3] + "..."
