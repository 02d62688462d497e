"""Loading a configuration from a YAML file and `--set key=value`."""

from __future__ import annotations

import copy
import difflib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from fer_pipeline.config.renamed_keys import describe_renamed_key, pop_renamed_keys
from fer_pipeline.config.schema import Config
from fer_pipeline.errors import ConfigError, RunError
from fer_pipeline.io import storage
from fer_pipeline.io.json_documents import UPGRADE_RUN
from fer_pipeline.io.paths import parse_path


def load_config(
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    options: Mapping[str, str] | None = None,
) -> Config:
    """Read and validate a configuration.

    Args:
        path: Path or URL of a YAML file; None for the defaults alone.
        overrides: `key=value` with a dotted key and a YAML value; the last one of a key wins.
        options: By dotted key, the command line option that set it instead of `--set`.

    Raises:
        ConfigError: The configuration is invalid. The message names every problem at once, the
            nearest key for each unknown one, and the new name of each renamed key.
        StorageError: The file cannot be read.
    """
    tree = read_yaml_mapping(parse_path(path)) if path is not None else {}
    file_problems = _pop_renamed_keys(tree)
    set_problems: list[str] = []
    for override in overrides:
        set_problems += _apply_override(tree, override)
    config, errors = _validate(tree)
    override_keys = [_split_key(override) for override in overrides]
    for error in errors:
        if any(_is_caused_by(error, keys) for keys in override_keys):
            key = _dotted_key(error)
            set_problems.append(_describe(error, (options or {}).get(key, f"--set {key}")))
        else:
            file_problems.append(_describe(error, _dotted_key(error)))
    problems = set_problems
    if file_problems:
        problems = [f"{path or 'configuration'}: {'; '.join(file_problems)}", *set_problems]
    if config is None or problems:
        raise ConfigError("; ".join(problems))
    return config


def load_stored_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read the configuration that a job wrote into a run's folder.

    Args:
        path: Path of the file.
        overrides: As for `load_config`.

    Raises:
        ConfigError: The configuration is invalid.
        RunError: The run was written by an older version, with other keys.
        StorageError: The file cannot be read.
    """
    if any(True for _ in pop_renamed_keys(read_yaml_mapping(path))):
        remedy = UPGRADE_RUN.format(folder=path.parent)
        raise RunError(f"{path}: has keys of an older version of fer_pipeline; {remedy}")
    return load_config(path, overrides)


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read the nested mappings of a YAML file, without validating them.

    Raises:
        ConfigError: The file is not YAML, or does not hold a mapping.
        StorageError: The file cannot be read.
    """
    try:
        tree = yaml.safe_load(storage.read_text(path)) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections with keys, got {type(tree).__name__}")
    return tree


def _pop_renamed_keys(tree: dict[str, Any]) -> list[str]:
    """Remove renamed keys from the tree, and return a sentence for each."""
    return [describe_renamed_key(old) for old, _ in pop_renamed_keys(tree)]


def _validate(tree: dict[str, Any]) -> tuple[Config | None, list[Any]]:
    """Return the configuration, if any of it is valid, and pydantic's errors."""
    problems: list[Any] = []
    while True:
        try:
            return Config.model_validate(tree), problems
        except ValidationError as error:
            details = error.errors()
        problems += details
        # Checks across several keys run only if each key is valid. So validate again without the
        # invalid keys.
        valid_tree = copy.deepcopy(tree)
        if not all(_remove_key(valid_tree, detail["loc"]) for detail in details):
            return None, problems
        tree = valid_tree


def _remove_key(tree: Any, location: Sequence[str | int]) -> bool:
    """Remove a key, or the nearest one that contains it; return whether the tree changed."""
    branch, last = None, None
    for part in location:
        if not isinstance(tree, dict) or part not in tree:
            break
        branch, last, tree = tree, part, tree[part]
    if branch is None:
        return False
    branch.pop(last, None)
    return True


def _apply_override(tree: dict[str, Any], override: str) -> list[str]:
    """Put one override into the tree; return the problems with its syntax or its key."""
    keys = _split_key(override)
    _, equals, text = override.partition("=")
    if not equals or not all(keys):
        return [f"--set {override}: expected key=value, such as image.size=28"]
    try:
        scalar = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return [f"--set {override}: {text!r} is not a YAML value"]
    renamed = _pop_renamed_keys(_nest(keys, scalar))
    if renamed:
        return [f"--set {sentence}" for sentence in renamed]
    for part in keys[:-1]:
        branch = tree.setdefault(part, {})
        if not isinstance(branch, dict):
            # The file has a null section or a list here: the override replaces it.
            branch = tree[part] = {}
        tree = branch
    tree[keys[-1]] = scalar
    return []


def _nest(keys: Iterable[str], leaf: Any) -> dict[str, Any]:
    """Return nested mappings with a single leaf."""
    first, *others = keys
    return {first: _nest(others, leaf) if others else copy.deepcopy(leaf)}


def _split_key(override: str) -> list[str]:
    return [part.strip() for part in override.partition("=")[0].split(".")]


def _is_caused_by(error: Any, keys: list[str]) -> bool:
    """Return whether an error concerns an override's key, or a section that only it names."""
    location = [*map(str, error["loc"])]
    is_unknown = error["type"] == "extra_forbidden" and location == keys[: len(location)]
    return is_unknown or location[: len(keys)] == keys


def _dotted_key(error: Any) -> str:
    return ".".join(map(str, error["loc"]))


def _describe(error: Any, name: str) -> str:
    """Return a sentence about an error, with the key as the user wrote it."""
    location = error["loc"]
    if error["type"] == "extra_forbidden":
        siblings = _sibling_keys(location)
        nearest = difflib.get_close_matches(str(location[-1]), siblings, n=1)
        suggestion = ".".join(map(str, [*location[:-1], *nearest]))
        hint = f"did you mean {suggestion}?" if nearest else f"known here: {', '.join(siblings)}"
        return f"{name}: unknown key, {hint}"
    message = error["msg"].removeprefix("Value error, ")
    actual = "" if isinstance(error["input"], dict) else f", got {error['input']!r}"
    return f"{name}: {message}{actual}" if name else message


def _sibling_keys(location: Sequence[str | int]) -> list[str]:
    section: Any = Config
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    return list(section.model_fields)
