import copy
from pathlib import Path
from typing import Any

import pytest

from fer_pipeline.config import Config, load_config, load_stored_config
from fer_pipeline.config.renamed_keys import (
    RENAMED_KEYS,
    RENAMED_VALUES,
    describe_renamed_key,
    pop_renamed_keys,
)
from fer_pipeline.errors import ConfigError, RunError

SECTIONS = ("augmentation", "feed")
KEYS = [key for key in RENAMED_KEYS if key not in SECTIONS]


def nest(key: str, leaf: Any) -> dict[str, Any]:
    first, _, others = key.partition(".")
    return {first: nest(others, leaf) if others else leaf}


def has_key(key: str) -> bool:
    section: Any = Config
    for part in key.split("."):
        if part not in section.model_fields:
            return False
        section = section.model_fields[part].annotation
    return True


def get_error_message(*overrides: str, path: Path | None = None) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(path, overrides)
    return str(raised.value)


@pytest.mark.parametrize(("old", "new"), RENAMED_KEYS.items())
def test_each_new_key_exists_and_each_old_one_does_not(old, new):
    assert has_key(new)
    # Only `tracking.mlflow` is still a name: that of a section.
    assert not has_key(old) or new.startswith(f"{old}.")


@pytest.mark.parametrize("old", KEYS)
def test_an_old_key_is_refused_with_its_new_name(tmp_path, old):
    path = tmp_path / "old.yaml"
    path.write_text("".join(f"{'  ' * i}{k}:\n" for i, k in enumerate(old.split(".")))[:-1] + " 1")
    sentence = f"{old} is now {RENAMED_KEYS[old]}"
    assert get_error_message(path=path).startswith(f"{path}: {sentence}")
    assert get_error_message(f"{old}=1").startswith(f"--set {sentence}")


def test_all_old_keys_are_refused_at_once_and_beside_other_problems(tmp_path):
    path = tmp_path / "old.yaml"
    path.write_text(
        "feed: {cache: memory, batch_size: 3}\nsplit: {kind: usage}\nimage: {size: 4}\n"
    )
    message = get_error_message("feed.batch_size=3", "augmentation.flip=true", path=path)
    assert message.split("; ") == [
        f"{path}: split.kind is now split.method",
        "feed.batch_size is now loader.batch_size",
        "feed.cache is now loader.cache_in_memory (none is now false, memory is now true)",
        "image.size: Input should be greater than or equal to 8, got 4",
        "--set feed.batch_size is now loader.batch_size",
        "--set augmentation.flip is now variants.flip",
    ]


@pytest.mark.parametrize("text", ["feed:", "feed: {}", "feed: {batchsize: 3}", "feed: 7"])
def test_an_old_section_without_an_old_key_is_refused_itself(tmp_path, text):
    path = tmp_path / "old.yaml"
    path.write_text(text)
    assert get_error_message(path=path) == f"{path}: feed is now loader"


def test_a_key_that_became_a_section_is_refused_with_a_plain_value():
    assert (
        get_error_message("tracking.mlflow=true")
        == "--set tracking.mlflow is now tracking.mlflow.enabled"
    )
    loaded = load_config(None, ["tracking.mlflow={enabled: true, experiment: faces}"])
    assert (loaded.tracking.mlflow.enabled, loaded.tracking.mlflow.experiment) == (True, "faces")
    assert load_config(None, ["tracking.mlflow="]) == Config()


def test_equal_keys_in_other_sections_are_not_renamed():
    tree = {"training": {"augmentation": {"flip": True}}, "model": {"options": {"feed": 1}}}
    before = copy.deepcopy(tree)
    assert list(pop_renamed_keys(tree)) == []
    assert tree == before


@pytest.mark.parametrize("old", KEYS)
def test_an_old_key_is_removed_and_yielded_with_its_value(old):
    tree = nest(old, 1)
    assert list(pop_renamed_keys(tree)) == [(old, 1)]
    assert old.split(".")[-1] not in str(tree)


def test_the_message_about_a_renamed_key_names_its_new_values():
    assert describe_renamed_key("labels.form") == (
        "labels.form is now labels.target (majority is now hard, distribution is now soft)"
    )
    assert set(RENAMED_VALUES) <= set(RENAMED_KEYS)


def test_the_error_about_a_stored_configuration_names_the_migration_script(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("seed: 1\nfeed: {batch_size: 3}\n")
    with pytest.raises(RunError, match=rf"scripts/migrate-run {tmp_path}$") as raised:
        load_stored_config(path)
    assert "\n" not in str(raised.value)
    path.write_text("seed: 1\nloader: {batch_size: 3}\n")
    assert load_stored_config(path, ["seed=2"]) == Config(seed=2, loader={"batch_size": 3})
