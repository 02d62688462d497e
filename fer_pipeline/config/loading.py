"""Reading a configuration from a YAML file and `--set key=value`."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fer_pipeline.config.keys import Config
from fer_pipeline.errors import ConfigError
from fer_pipeline.io import storage


def load(
    path: Path | None, overrides: Sequence[str] = (), options: Mapping[str, str] | None = None
) -> Config:
    """Reads and validates a configuration.

    Args:
        path: A YAML file; None for the defaults alone.
        overrides: `key=value` with a dotted key and a YAML value; the last one of a key wins.
        options: By dotted key, the option by which the user gave it in place of `--set`.

    Raises:
        ConfigError: Names every problem at once, and the nearest key for each unknown one.
    """
    tree: Any = {}
    if path is not None:
        try:
            tree = yaml.safe_load(storage.read_text(path)) or {}
        except (yaml.YAMLError, ValueError) as error:
            raise ConfigError(f"{path}: is no YAML: {' '.join(str(error).split())}") from error
        if not isinstance(tree, dict):
            raise ConfigError(f"{path}: expected sections with keys, got {type(tree).__name__}")
    said = [said for override in overrides if (said := _override(tree, override))]
    found, invalid = _validate(tree)
    given = [_keys(override) for override in overrides]
    of_file = []
    for detail in invalid:
        if any(_speaks_of(detail, keys) for keys in given):
            key = _key(detail)
            said.append(_problem(detail, (options or {}).get(key, f"--set {key}")))
        else:
            of_file.append(_problem(detail, _key(detail)))
    if of_file:
        said.insert(0, f"{path or 'configuration'}: {'; '.join(of_file)}")
    if found is None or said:
        raise ConfigError("; ".join(said))
    return found


def _validate(tree: dict[str, Any]) -> tuple[Config | None, list[Any]]:
    """The configuration, or what pydantic says of every problem that it has."""
    problems: list[Any] = []
    while True:
        try:
            return Config.model_validate(tree), problems
        except ValidationError as error:
            found = error.errors()
        problems += found
        # What hangs on several keys is only checked once each of them is valid: so again, without
        # those that are not.
        rest = copy.deepcopy(tree)
        if not all(_without(rest, detail["loc"]) for detail in found):
            return None, problems
        tree = rest


def _without(tree: Any, location: Sequence[str | int]) -> bool:
    """Takes the key at a location, or the nearest around it, out of the tree."""
    branch, last = None, None
    for part in location:
        if not isinstance(tree, dict) or part not in tree:
            break
        branch, last, tree = tree, part, tree[part]
    if branch is None:
        return False
    branch.pop(last, None)
    return True


def _override(tree: dict[str, Any], override: str) -> str | None:
    """Puts one override into the tree; says what is wrong with it, if anything is."""
    path = _keys(override)
    _, equals, text = override.partition("=")
    if not equals or not all(path):
        return f"--set {override}: expected key=value, such as image.size=28"
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return f"--set {override}: {text!r} is no YAML value"
    for part in path[:-1]:
        branch = tree.setdefault(part, {})
        if not isinstance(branch, dict):
            # A null section in the file, or a list: the override makes its own.
            branch = tree[part] = {}
        tree = branch
    tree[path[-1]] = value
    return None


def _keys(override: str) -> list[str]:
    return [part.strip() for part in override.partition("=")[0].split(".")]


def _speaks_of(detail: Any, keys: list[str]) -> bool:
    """Whether a problem is one of an override's key, or of a section that only it names."""
    location = [*map(str, detail["loc"])]
    unknown = detail["type"] == "extra_forbidden" and location == keys[: len(location)]
    return unknown or location[: len(keys)] == keys


def _key(detail: Any) -> str:
    return ".".join(map(str, detail["loc"]))


def _problem(detail: Any, name: str) -> str:
    """What is wrong with a key, under the name by which the user gave it."""
    location = detail["loc"]
    if detail["type"] == "extra_forbidden":
        known = _keys_beside(location)
        near = difflib.get_close_matches(str(location[-1]), known, n=1)
        meant = ".".join(map(str, [*location[:-1], *near]))
        hint = f"did you mean {meant}?" if near else f"known here: {', '.join(known)}"
        return f"{name}: unknown key, {hint}"
    message = detail["msg"].removeprefix("Value error, ")
    got = "" if isinstance(detail["input"], dict) else f", got {detail['input']!r}"
    return f"{name}: {message}{got}" if name else message


def _keys_beside(location: Sequence[str | int]) -> list[str]:
    section: Any = Config
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
