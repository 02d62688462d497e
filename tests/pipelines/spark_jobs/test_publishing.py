"""The output folder of preprocess: overwriting, failing and cleaning up."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.dataset_files import DATASET
from fer_pipeline.errors import DatasetError, StorageError, TooManyBadRowsError
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.folders import read_files
from tests.helpers.preprocessed import PreprocessedDataset, build_expected_row


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Two valid inputs without a common image, and one that is rejected."""

    def write_faces(name: str, first: int) -> Path:
        return write_csv(
            tmp_path / name, [format_row(n % 7, make_image(first + n)) for n in range(14)]
        )

    return (
        write_faces("a.csv", 0),
        write_faces("b.csv", 100),
        write_csv(tmp_path / "bad.csv", ["broken", "broken"]),
    )


def list_published_files(dataset: PreprocessedDataset) -> set[str]:
    """Return the files that the manifest describes, and two more."""
    files = {file.path for file in dataset.manifest.files}
    return {"manifest.json", "config.yaml", *files, *dataset.manifest.quarantine}


def test_a_dataset_is_replaced_only_on_request(prepare, files, tmp_path) -> None:
    old = prepare(files[0], to=tmp_path / "out")
    before = read_files(tmp_path / "out")

    with pytest.raises(
        StorageError, match=r"out: holds a dataset already; --overwrite replaces it"
    ):
        prepare(files[1], to=tmp_path / "out")

    assert read_files(tmp_path / "out") == before

    new = prepare(files[1], to=tmp_path / "out", overwrite=True)

    assert {row["source"] for row in new.rows} == {str(files[1])}
    assert set(read_files(tmp_path / "out")) == list_published_files(new)
    assert not list_published_files(old) & {file.path for file in new.manifest.files}


def test_a_failed_overwrite_leaves_the_old_dataset_whole(prepare, files, tmp_path) -> None:
    old = prepare(files[0], to=tmp_path / "out")
    before = read_files(tmp_path / "out")
    one_face_per_class = write_csv(
        tmp_path / "alone.csv", [format_row(n, make_image(200 + n)) for n in range(7)]
    )
    split = {"method": "stratified", "validation": 0.7, "test": 0}

    with pytest.raises(TooManyBadRowsError):
        prepare(files[2], to=tmp_path / "out", overwrite=True)
    # This one fails after its files are written: each class has one image, and validation gets it.
    with pytest.raises(DatasetError, match="no training rows are left"):
        prepare(one_face_per_class, to=tmp_path / "out", overwrite=True, split=split)

    assert before.items() <= read_files(tmp_path / "out").items()
    assert PreprocessedDataset.read(tmp_path / "out") == old

    new = prepare(files[1], to=tmp_path / "out", overwrite=True)

    assert set(read_files(tmp_path / "out")) == list_published_files(new)


def test_leftovers_of_a_killed_job_are_deleted(prepare, files, tmp_path) -> None:
    leftovers = (
        f"split=train/{DATASET.make_data_file_name(1)}",
        f"split=test/{DATASET.make_data_file_name(2)}",
        f"quarantine/{DATASET.make_data_file_name(3)}",
        ".manifest-a1b2c3_d.json",
        ".config-a1b2c3_d.yaml",
    )
    for name in leftovers:
        path = tmp_path / "out" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"leftover")

    dataset = prepare(files[0], to=tmp_path / "out")

    assert set(read_files(tmp_path / "out")) == list_published_files(dataset)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "manifest.json",
        "config.yaml",
        "split=train",
    }


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_folder_of_other_files_is_refused(prepare, files, tmp_path, overwrite) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.odt").write_bytes(b"years of work")

    with pytest.raises(StorageError, match=r"is not empty .* \(it holds thesis\.odt\)"):
        prepare(files[0], to=tmp_path / "out", overwrite=overwrite)

    assert read_files(tmp_path / "out") == {"thesis.odt": b"years of work"}


def test_a_file_is_not_an_output_folder(prepare, files) -> None:
    before = files[1].read_bytes()

    with pytest.raises(StorageError, match=r"b\.csv: is a file; choose a folder"):
        prepare(files[0], to=files[1])

    assert files[1].read_bytes() == before


def test_other_files_in_a_dataset_survive_an_overwrite(prepare, files, tmp_path) -> None:
    prepare(files[0], to=tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")

    new = prepare(files[1], to=tmp_path / "out", overwrite=True)

    assert set(read_files(tmp_path / "out")) == {*list_published_files(new), "notes.txt"}


def test_a_reader_finds_a_whole_dataset_during_an_overwrite(prepare, files, tmp_path) -> None:
    folder = tmp_path / "out"
    prepare(files[0], to=folder)
    finished = threading.Event()
    missing_files = []
    checksums = set()

    def read_repeatedly() -> None:
        while not finished.is_set():
            before = StoredDataset.open(folder).manifest
            missing = [file.path for file in before.files if not (folder / file.path).is_file()]
            # Files are deleted only once the manifest names others.
            if missing and StoredDataset.open(folder).manifest == before:
                missing_files.append(missing)
            checksums.add(before.checksum)

    reader = threading.Thread(target=read_repeatedly)
    reader.start()
    try:
        new = prepare(files[1], to=folder, overwrite=True)
    finally:
        finished.set()
        reader.join()

    assert missing_files == []
    assert StoredDataset.open(folder).manifest == new.manifest
    assert checksums


def test_the_error_names_the_output_that_cannot_be_written(prepare, files) -> None:
    with pytest.raises(StorageError) as caught:
        prepare(files[0], to=files[1] / "out")

    assert str(files[1] / "out") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_output_may_be_a_url(prepare, files, tmp_path) -> None:
    dataset = prepare(files[0], to=f"file:{tmp_path}/a%20b")

    assert dataset.folder == tmp_path / "a b"
    assert dataset.rows == [
        build_expected_row(files[0], n, n % 7, make_image(n)) for n in range(14)
    ]
