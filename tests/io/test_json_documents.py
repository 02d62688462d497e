import json
from pathlib import Path

import pytest
from pydantic import BaseModel

from fer_pipeline.errors import DatasetError, RunError, StorageError
from fer_pipeline.io.json_documents import DocumentFormat, read_document


class Report(BaseModel):
    format_version: int = 2
    count: int


DATASET = DocumentFormat(2, DatasetError, "is not a report", "run preprocess again")
RUN = DocumentFormat(2, RunError, "is damaged", "convert {folder}")


def write_report(folder: Path, content: str) -> Path:
    (folder / "report.json").write_text(content)
    return folder / "report.json"


def test_a_valid_document_is_read(tmp_path):
    path = write_report(tmp_path, json.dumps({"format_version": 2, "count": 3}))
    assert read_document(path, Report, RUN) == Report(format_version=2, count=3)


def test_an_older_version_is_refused_with_the_remedy(tmp_path):
    path = write_report(tmp_path, json.dumps({"format_version": 1, "count": 3}))
    with pytest.raises(RunError) as raised:
        read_document(path, Report, RUN)
    assert str(raised.value).endswith(f"reads format 2; convert {tmp_path}")
    with pytest.raises(DatasetError, match=r"has format 1, .* run preprocess again"):
        read_document(path, Report, DATASET)


def test_a_document_without_a_version_is_read(tmp_path):
    assert read_document(write_report(tmp_path, '{"count": 3}'), Report, RUN) == Report(count=3)


def test_a_newer_version_is_refused_before_its_content_is_checked(tmp_path):
    path = write_report(tmp_path, '{"format_version": 3, "count": "many"}')
    with pytest.raises(RunError) as raised:
        read_document(path, Report, RUN)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: has format 3, ")
    assert message.endswith("reads format 2; update fer_pipeline")


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
    path = write_report(tmp_path, content)
    with pytest.raises(DatasetError) as raised:
        read_document(path, Report, DATASET)
    assert str(raised.value).startswith(f"{path}: is not a report: {key}: ")
    with pytest.raises(RunError, match=r"report\.json: is damaged: "):
        read_document(path, Report, RUN)


def test_a_missing_document_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError, match="no such file"):
        read_document(tmp_path / "report.json", Report, RUN)
