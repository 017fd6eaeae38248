"""params.yaml, read and checked.

`load_params("pyramid")` gives one section of the chosen profile, an instance of its class in `settings`. An unknown, missing or
mistyped key, a value out of range and settings that contradict each other are one clear line each, before anything runs.
`python -m hkd_core.params` prints every setting of a profile with its value and meaning. This module never imports torch.
"""

import argparse
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from hkd_core.common.command import ended, write
from hkd_core.common.errors import UserError
from hkd_core.common.root import find_root
from hkd_core.common.settings import STAGES, File, Profile
from hkd_core.common.strict import Strict, build, check_complete, expected_of, plain, show

EVOLVED = "base_models/medium"  # the self-evolved model that evaluation compares


class Loader(yaml.SafeLoader):
    """YAML in which a key given twice is an error, as YAML's standard says; PyYAML would keep the last one."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for name, _ in node.value:
            if isinstance(name, yaml.ScalarNode) and (name.tag, name.value) in seen:
                raise yaml.MarkedYAMLError(problem=f"key {show(name.value)} is given twice", problem_mark=name.start_mark)
            seen.add((name.tag, name.value) if isinstance(name, yaml.ScalarNode) else id(name))
        return node


def read_params(path: Path | None = None) -> dict:
    """params.yaml as it is written. Raises UserError naming the file, and the line of a syntax error or of a key given twice."""
    path = path or find_root() / "params.yaml"
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader)
    except OSError as error:
        raise UserError(f"{path.name}: cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
        line = f":{mark.line + 1}" if mark else ""
        raise UserError(f"{path.name}{line}: not YAML: {(problem or str(error)).splitlines()[0]}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path.name}: not a text file in UTF-8") from error
    except (ValueError, RecursionError) as error:  # the 30th of February, 5,000 digits, 5,000 brackets
        raise UserError(f"{path.name}: holds a value that cannot be read: {str(error).splitlines()[0]}") from error
    if not isinstance(content, dict):
        raise UserError(f"{path.name}: {'empty; ' if content is None else ''}expected the keys profile, seed and profiles")
    content = plain(content, f"{path.name}: ")
    build(File, content, f"{path.name}: ")
    return content


def load_seed(seed: int | None = None, path: Path | None = None) -> int:
    """`seed`, or params.yaml's if it is None. Raises UserError unless it is a whole number from 0 to 2^32 - 1."""
    if seed is None:
        return read_params(path)["seed"]
    return build(File, {"profile": None, "seed": seed, "profiles": {}}, "params.yaml: ").seed


def chosen_profile(path: Path | None = None) -> str:
    """The profile that params.yaml chooses. Raises UserError where it is not the name of one."""
    content = read_params(path)
    if content["profile"] not in content["profiles"]:
        raise UserError(f"params.yaml: profile: expected one of {', '.join(content['profiles'])}, got {show(content['profile'])}")
    return content["profile"]


def load_profile(*, profile: str | None = None, path: Path | None = None, **overrides: dict[str, Any]) -> Profile:
    """All settings of a profile, checked; by default of the one that params.yaml chooses. overrides: stage -> keys to replace.

    Raises UserError naming the key, what was expected of it, and what stands there.
    """
    if unknown := set(overrides) - set(STAGES):
        raise UserError(f"unknown stage {show(min(unknown))}; expected one of {', '.join(STAGES)}")
    content = read_params(path)
    profiles, chosen = content["profiles"], content["profile"] if profile is None else profile
    if not isinstance(chosen, str) or chosen not in profiles:
        raise UserError(f"params.yaml: profile: expected one of {', '.join(profiles)}, got {show(chosen)}")
    sections, where = profiles[chosen], f"params.yaml: profiles.{chosen}"
    if not isinstance(sections, dict):
        raise UserError(f"{where}: expected keys and values, got {show(sections)}")
    if "needs" in sections:
        raise UserError(f"profile {chosen}: not ready to run: {' '.join(str(sections['needs']).split())}")
    for stage, values in overrides.items():
        if values and isinstance(sections.get(stage), dict):
            sections = sections | {stage: sections[stage] | plain(values, f"{where}.{stage}.")}
    found = build(Profile, sections, f"{where}.")
    for stage, section in found:
        check_complete(section, f"{where}.{stage}.")
    if "model" not in overrides.get("self_evolution", {}) and found.self_evolution.model != EVOLVED:
        got = show(found.self_evolution.model)
        raise UserError(
            f"{where}.self_evolution.model: expected {EVOLVED}, which evaluation compares (override it for others), got {got}"
        )
    return found


def load_params(stage: str, *, profile: str | None = None, path: Path | None = None, **overrides: Any) -> Any:
    """The settings of one stage, an instance of its class in STAGES. `overrides` replace keys.

    Raises UserError as `load_profile` does: the whole profile is checked, since rules hold between its sections.
    """
    return getattr(load_profile(profile=profile, path=path, **{stage: overrides}), stage)


def explained(section: Strict, width: int = 80) -> Iterator[str]:
    """The lines that explain a section: every setting with its value, sentence, unit, range and source, `width` columns wide."""
    for name, field in type(section).model_fields.items():
        about: Any = field.json_schema_extra
        unit = f"Unit: {about['unit']}. " if about["unit"] else ""
        text = f"{field.description} {unit}Expected: {expected_of(type(section), name)}. Source: {about['source']}."
        value = f"{name} = {show(getattr(section, name), 10**4)}"
        yield from textwrap.wrap(value, width, initial_indent="  ", subsequent_indent=" " * 10)
        yield from textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)


def main(arguments: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m hkd_core.params",
        description="Print every setting of a profile with its value, meaning, unit, range and source.",
    )
    parser.add_argument("--profile", help="a profile of params.yaml; by default the one it chooses")
    parser.add_argument("--stage", help=f"only this section: {', '.join(STAGES)}")
    options = parser.parse_args(arguments)

    def explain() -> None:
        for stage in STAGES if options.stage is None else [options.stage]:
            section = load_params(stage, profile=options.profile)
            write("\n".join([*textwrap.wrap(f"{stage}: {section.__doc__}", 80), *explained(section), ""]))

    return ended(explain)

