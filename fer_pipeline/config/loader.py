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
    option_names: Mapping[str, str] | None = None,
) -> Config:
    """Read and validate a configuration; keys that are not set have their defaults.

    Args:
        path: Path or URL of a YAML file; None for the default configuration.
        overrides: Texts `key=value` with a dotted key and a YAML value, which replaces the value of
            the file. If a key is repeated, its last value counts.
        option_names: Command line option by dotted key, such as `--flip-tta` for
            `inference.flip_tta`. If an override gives the key an invalid value, the error message
            shows this option instead of `--set` and the key.

    Raises:
        ConfigError: The configuration is invalid. The message lists all problems, suggests a key
            for each unknown key, and gives the new name of each renamed key.
        StorageError: The file cannot be read.
    """
    tree = read_yaml_mapping(parse_path(path)) if path is not None else {}
    file_problems = _remove_renamed_keys(tree)
    set_problems: list[str] = []
    for override in overrides:
        set_problems += _apply_override(tree, override)
    config, errors = _validate_tree(tree)
    override_keys = [_split_key(override) for override in overrides]
    for error in errors:
        if any(_is_caused_by(error, keys) for keys in override_keys):
            key = _format_key(error)
            set_problems.append(
                _describe_error(error, (option_names or {}).get(key, f"--set {key}"))
            )
        else:
            file_problems.append(_describe_error(error, _format_key(error)))
    problems = set_problems
    if file_problems:
        problems = [f"{path or 'configuration'}: {'; '.join(file_problems)}", *set_problems]
    if config is None or problems:
        raise ConfigError("; ".join(problems))
    return config


def load_stored_config(path: Path, overrides: Sequence[str] = ()) -> Config:
    """Read and validate the configuration that a job wrote to the folder of a run.

    Args:
        path: Path of the YAML file.
        overrides: Texts `key=value` with a dotted key and a YAML value, which replaces the value of
            the file.

    Raises:
        ConfigError: The configuration is invalid.
        RunError: An older version of this package wrote the file, and some keys in it have been
            renamed since.
        StorageError: The file cannot be read.
    """
    if any(True for _ in pop_renamed_keys(read_yaml_mapping(path))):
        remedy = UPGRADE_RUN.format(folder=path.parent)
        raise RunError(f"{path}: has keys of an older version of fer_pipeline; {remedy}")
    return load_config(path, overrides)


def read_yaml_mapping(path: Path) -> dict[str, Any]:
    """Read the nested mappings of a YAML file, without validating keys and values.

    Returns:
        The mapping; empty for an empty file.

    Raises:
        ConfigError: The file is not valid YAML, or its content is not a mapping.
        StorageError: The file cannot be read.
    """
    try:
        tree = yaml.safe_load(storage.read_text(path)) or {}
    except (yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{path}: expected sections with keys, got {type(tree).__name__}")
    return tree


def _remove_renamed_keys(tree: dict[str, Any]) -> list[str]:
    """Remove the keys that have been renamed from nested mappings, in place.

    Returns:
        One error message for each removed key; it gives the new name of the key.
    """
    return [describe_renamed_key(old_key) for old_key, _ in pop_renamed_keys(tree)]


def _validate_tree(tree: dict[str, Any]) -> tuple[Config | None, list[Any]]:
    """Validate the nested mappings of a configuration, and collect as many errors as possible.

    Returns:
        config: Configuration in which invalid keys have their defaults; None if an error does not
            refer to any key in `tree`.
        errors: All errors, as pydantic's dictionaries; empty if the configuration is valid.
    """
    all_errors: list[Any] = []
    while True:
        try:
            return Config.model_validate(tree), all_errors
        except ValidationError as error:
            errors = error.errors()
        all_errors += errors
        # Checks that involve several keys run only if each key is valid. Therefore validate again
        # without the invalid keys.
        valid_tree = copy.deepcopy(tree)
        if not all(_remove_key(valid_tree, error_details["loc"]) for error_details in errors):
            return None, all_errors
        tree = valid_tree


def _remove_key(tree: Any, location: Sequence[str | int]) -> bool:
    """Remove a nested key, or if it does not exist, the deepest existing key above it.

    Args:
        tree: Nested mappings, which are changed in place.
        location: Keys from the outermost to the innermost, such as ("image", "size").

    Returns:
        Whether a key was removed; False if the outermost key does not exist.
    """
    branch, deepest_key = None, None
    for key in location:
        if not isinstance(tree, dict) or key not in tree:
            break
        branch, deepest_key, tree = tree, key, tree[key]
    if branch is None:
        return False
    branch.pop(deepest_key, None)
    return True


def _apply_override(tree: dict[str, Any], override: str) -> list[str]:
    """Apply an override, such as `image.size=28`, to nested mappings in place.

    Returns:
        An empty list if the key was set. Error messages if the syntax is wrong or the key has been
        renamed; the mappings are then unchanged.
    """
    keys = _split_key(override)
    _, equals, text = override.partition("=")
    if not equals or not all(keys):
        return [f"--set {override}: expected key=value, such as image.size=28"]
    try:
        setting = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        return [f"--set {override}: {text!r} is not a YAML value"]
    messages = _remove_renamed_keys(_nest_keys(keys, setting))
    if messages:
        return [f"--set {message}" for message in messages]
    for key in keys[:-1]:
        branch = tree.setdefault(key, {})
        if not isinstance(branch, dict):
            # The file has null, a list or a scalar at this key. The override replaces it.
            branch = tree[key] = {}
        tree = branch
    tree[keys[-1]] = setting
    return []


def _nest_keys(keys: Iterable[str], leaf: Any) -> dict[str, Any]:
    """Return nested mappings with one key each and a copy of `leaf` as the innermost value.

    For example, the keys "image" and "size" and the leaf 28 give `{"image": {"size": 28}}`.
    """
    first_key, *inner_keys = keys
    return {first_key: _nest_keys(inner_keys, leaf) if inner_keys else copy.deepcopy(leaf)}


def _split_key(override: str) -> list[str]:
    """Return the parts of the dotted key in a text `key=value`: "a" and "b" for `a.b=1`."""
    return [part.strip() for part in override.partition("=")[0].split(".")]


def _is_caused_by(error: Any, keys: list[str]) -> bool:
    """Return whether an override `key=value` caused an error of pydantic.

    This is the case if the error refers to the key of the override or to a key below it, or if it
    reports that the section of this key is unknown.

    Args:
        error: Dictionary of the error.
        keys: Parts of the dotted key of the override, from the outermost.
    """
    location = [*map(str, error["loc"])]
    is_unknown_section = error["type"] == "extra_forbidden" and location == keys[: len(location)]
    return is_unknown_section or location[: len(keys)] == keys


def _format_key(error: Any) -> str:
    """Return the dotted key to which an error of pydantic refers; "" if it refers to no key."""
    return ".".join(map(str, error["loc"]))


def _describe_error(error: Any, shown_key: str) -> str:
    """Return a message about an error of pydantic; for an unknown key it suggests a similar key.

    Args:
        error: Dictionary of the error.
        shown_key: Dotted key or command line option, as the user wrote it; "" if the error is about
            the whole configuration.
    """
    location = error["loc"]
    if error["type"] == "extra_forbidden":
        siblings = _list_sibling_keys(location)
        nearest = difflib.get_close_matches(str(location[-1]), siblings, n=1)
        suggestion = ".".join(map(str, [*location[:-1], *nearest]))
        hint = (
            f"did you mean {suggestion}?" if nearest else f"expected one of {', '.join(siblings)}"
        )
        return f"{shown_key}: unknown key, {hint}"
    message = error["msg"].removeprefix("Value error, ")
    actual = "" if isinstance(error["input"], dict) else f", got {error['input']!r}"
    return f"{shown_key}: {message}{actual}" if shown_key else message


def _list_sibling_keys(location: Sequence[str | int]) -> list[str]:
    """Return all valid keys of the section in which a given key lies.

    Args:
        location: Keys from the outermost to the innermost; the last key need not exist.
    """
    section: Any = Config
    for key in location[:-1]:
        section = section.model_fields[key].annotation
    return list(section.model_fields)
