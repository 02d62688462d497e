"""The check of names and docstrings that `make lint` runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import check_vocabulary
from scripts.check_vocabulary import find_violations


def list_violation_names(source: str) -> list[str]:
    return [violation.name for violation in find_violations(source)]


@pytest.mark.parametrize(
    "source",
    [
        "found = 1",
        "def read(found): ...",
        "def read(*, found=None): ...",
        "lambda found: 0",
        "for found in (): ...",
        "[0 for found in ()]",
        "with open('x') as found: ...",
        "try: ...\nexcept OSError as found: ...",
        "if (found := 1): ...",
        "_found = 1",
    ],
)
def test_filler_names_of_variables_are_found(source):
    assert [name.strip("_") for name in list_violation_names(source)] == ["found"]


def test_names_that_contain_a_filler_word_are_allowed():
    assert list_violation_names("model_info = other_run = value_count = 1") == []


def test_filler_names_of_fields_are_allowed():
    assert list_violation_names("class RowCounts:\n    kept: int") == []


def test_reading_a_filler_name_is_allowed():
    assert list_violation_names("print(json.data, value)") == []


@pytest.mark.parametrize("name", ["located", "_agreed", "told", "about"])
def test_function_names_without_a_verb_are_found(name):
    assert list_violation_names(f"def {name}(): ...") == [name]


@pytest.mark.parametrize("name", ["is_finished", "enabled_keys", "seed", "raise_if_interrupted"])
def test_function_names_with_a_verb_or_noun_are_allowed(name):
    assert list_violation_names(f"def {name}(): ...") == []


@pytest.mark.parametrize("decorator", ["property", "functools.cached_property", "classmethod"])
def test_properties_and_constructors_may_be_participles(decorator):
    assert list_violation_names(f"class Run:\n    @{decorator}\n    def finished(self): ...") == []


@pytest.mark.parametrize("opening", ["What", "Whether", "Of", "As", "For", "Those", "The same"])
def test_docstrings_that_open_without_verb_or_noun_are_found(opening):
    docstring = f'"""{opening} a file holds."""'
    assert list_violation_names(docstring) == ["module"]
    assert list_violation_names(f"def read():\n    {docstring}") == ["read"]
    assert list_violation_names(f"class Reader:\n    {docstring}") == ["Reader"]


def test_docstrings_that_open_with_a_verb_or_noun_are_allowed():
    assert list_violation_names('"""Return what a file holds."""') == []
    assert list_violation_names('"""The content of a file."""') == []


def test_several_constants_on_one_line_are_found():
    assert list_violation_names("_WIDTH, _HEIGHT = 3, 4") == ["_WIDTH, _HEIGHT"]
    assert list_violation_names("width, height = 3, 4") == []


def test_violations_are_printed_with_file_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    module = tmp_path / "module.py"
    module.write_text("WIDTH = 3\nfound = 1\n")

    assert check_vocabulary.main([str(tmp_path)]) == 1
    assert capsys.readouterr().out.startswith(f"{module}:2: found: ")


def test_a_clean_folder_prints_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "module.py").write_text("width = 3\n")

    assert check_vocabulary.main([str(tmp_path)]) == 0
    assert capsys.readouterr().out == ""
