import json

import pytest
from pydantic import BaseModel

from fer_pipeline.errors import DatasetError, RunError, StorageError
from fer_pipeline.io.json_documents import read_document


class Report(BaseModel):
    format_version: int = 2
    count: int


def write(folder, content):
    (folder / "report.json").write_text(content)
    return folder / "report.json"


@pytest.mark.parametrize("version", [1, 2])
def test_a_valid_document_is_read(tmp_path, version):
    path = write(tmp_path, json.dumps({"format_version": version, "count": 3}))
    assert read_document(path, Report, RunError) == Report(format_version=version, count=3)


def test_a_document_without_a_version_is_read(tmp_path):
    assert read_document(write(tmp_path, '{"count": 3}'), Report, RunError) == Report(count=3)


def test_a_newer_version_is_refused_before_its_content(tmp_path):
    path = write(tmp_path, '{"format_version": 3, "count": "many"}')
    with pytest.raises(RunError) as raised:
        read_document(path, Report, RunError)
    message = f"{tmp_path}: its format is 3, this version reads up to 2; update fer_pipeline"
    assert str(raised.value) == message


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ('{"count": "many"}', "count"),
        ("{}", "count"),
        ("", "the file"),
        ("[]", "the file"),
        ('{"format_version": "two", "count": 3}', "format_version"),
    ],
)
def test_an_invalid_document_names_its_first_wrong_key(tmp_path, content, key):
    path = write(tmp_path, content)
    with pytest.raises(DatasetError) as raised:
        read_document(path, Report, DatasetError, "is not a report")
    assert str(raised.value).startswith(f"{path}: is not a report: {key}: ")
    with pytest.raises(RunError, match=r"report\.json: is damaged: "):
        read_document(path, Report, RunError)


def test_a_missing_document_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="no such file"):
        read_document(tmp_path / "report.json", Report, RunError)
