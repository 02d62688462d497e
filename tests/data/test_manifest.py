import json
from pathlib import Path

import pytest

from fer_pipeline.data.dataset import StoredDataset, is_dataset
from fer_pipeline.data.enhancement import Enhancement
from fer_pipeline.data.manifest import (
    DataFile,
    ImageInfo,
    LabelInfo,
    Manifest,
    RowCounts,
    SourceFile,
)
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import DropReason, QuarantineReason, Split
from fer_pipeline.errors import DatasetError

FILES = [
    DataFile(path="split=train/part-a.parquet", split=Split.TRAIN, rows=3, bytes=5),
    DataFile(path="split=train/part-b.parquet", split=Split.TRAIN, rows=4, bytes=6),
    DataFile(path="split=test/part-c.parquet", split=Split.TEST, rows=2, bytes=7),
]


def make_manifest(**changes: object) -> Manifest:
    fields = {
        "created": "2024-05-06T07:08:09+00:00",
        "image": ImageInfo(
            size=48, dtype="uint8", normalization=Normalization.standard(9, 700, 99999)
        ),
        "classes": ["angry", "sad"],
        "files": FILES,
        "counts": {"train": {"angry": 3, "sad": 4}, "test": {"angry": 2, "sad": 0}},
        "rows": RowCounts(
            read=12,
            kept={"train": {"angry": 3, "sad": 4}, "test": {"angry": 2, "sad": 0}},
            dropped={DropReason.COPY: 2},
            quarantined={QuarantineReason.EMPTY: 1},
            written=9,
        ),
        "quarantine": ["quarantine/part-d.parquet"],
        "sources": [
            SourceFile(path="/d/gr\u00fcn.csv", records=12, quarantined=1, fingerprint="0a")
        ],
        "checksum": "0123456789abcdef",
        "versions": {"numpy": "1.26.4"},
        "config": {"seed": 0, "split": {"usage": {"PrivateTest": None}}},
    }
    return Manifest(**{**fields, **changes})


def write_dataset(folder: Path) -> None:
    """Write the manifest, and the files that it names."""
    for file in FILES:
        path = folder / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(file.bytes))
    make_manifest().write(folder)


def read_manifest_text(folder: Path) -> str:
    return (folder / "manifest.json").read_text(encoding="utf-8")


def test_a_written_manifest_is_read_back(tmp_path):
    make_manifest().write(tmp_path)
    assert StoredDataset.open(tmp_path).manifest == make_manifest()
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


@pytest.mark.parametrize(
    "normalization",
    [
        Normalization.centered(),
        Normalization.zero_to_one(),
        Normalization.standard(9, 700, 99999),
        Normalization.standard(1000, 1, 1),
        Normalization.standard(7, 7, 7),
    ],
    ids=str,
)
def test_the_normalisation_is_read_back_to_the_last_bit(tmp_path, normalization):
    make_manifest(image=ImageInfo(size=8, dtype="float32", normalization=normalization)).write(
        tmp_path
    )
    stored = StoredDataset.open(tmp_path).manifest.image.normalization
    assert stored == normalization
    assert stored.lookup_table().tobytes() == normalization.lookup_table().tobytes()


def test_a_manifest_is_plain_json(tmp_path):
    make_manifest().write(tmp_path)
    content = json.loads(read_manifest_text(tmp_path))
    assert (content["format"], content["format_version"]) == ("fer_pipeline dataset", 2)
    assert content["files"][0] == {
        "path": "split=train/part-a.parquet",
        "split": "train",
        "rows": 3,
        "bytes": 5,
    }
    assert content["rows"]["dropped"] == {"further copy with the same label": 2}
    assert content["config"] == {"seed": 0, "split": {"usage": {"PrivateTest": None}}}


def test_a_manifest_without_votes_and_enhancement_has_the_defaults(tmp_path):
    make_manifest().write(tmp_path)
    old = json.loads(read_manifest_text(tmp_path))
    del old["labels"], old["image"]["enhancement"]
    (tmp_path / "manifest.json").write_text(json.dumps(old))

    assert StoredDataset.open(tmp_path).manifest == make_manifest(
        labels=LabelInfo(votes=None, target="hard")
    )
    assert StoredDataset.open(tmp_path).manifest.image.enhancement == Enhancement()


@pytest.mark.parametrize(
    ("labels", "soft"),
    [
        (LabelInfo(), False),
        (LabelInfo(votes="v.csv"), False),
        (LabelInfo(votes="v.csv", target="soft"), True),
    ],
)
def test_a_manifest_describes_the_origin_and_kind_of_its_labels(tmp_path, labels, soft):
    make_manifest(labels=labels).write(tmp_path)
    stored = StoredDataset.open(tmp_path).manifest
    assert stored.labels == labels
    assert stored.labels.has_soft_labels is soft


def test_images_with_another_enhancement_are_refused(tmp_path):
    equalized = Enhancement(equalize=True)
    image = ImageInfo(
        size=8, dtype="uint8", normalization=Normalization.zero_to_one(), enhancement=equalized
    )
    StoredDataset(tmp_path, make_manifest()).require_enhancement(Enhancement())
    StoredDataset(tmp_path, make_manifest(image=image)).require_enhancement(equalized)
    with pytest.raises(DatasetError) as raised:
        StoredDataset(tmp_path, make_manifest(image=image)).require_enhancement(
            Enhancement(denoise=3)
        )
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: the enhancement of its images is equalize, ")
    assert "with denoise=3; prepare the dataset with the model's image.enhancement" in message


def test_a_second_manifest_replaces_the_first(tmp_path):
    make_manifest().write(tmp_path)
    make_manifest(checksum="f" * 16).write(tmp_path)
    assert StoredDataset.open(tmp_path).manifest.checksum == "f" * 16
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


def test_files_and_rows_are_counted_by_split():
    assert make_manifest().files_in(Split.TRAIN) == FILES[:2]
    assert make_manifest().files_in(Split.TEST) == FILES[2:]
    assert {split: make_manifest().row_count(split) for split in Split} == {
        Split.TRAIN: 7,
        Split.VALIDATION: 0,
        Split.TEST: 2,
    }


def test_only_a_folder_with_a_manifest_is_a_dataset(tmp_path):
    assert not is_dataset(tmp_path)
    assert not is_dataset(tmp_path / "none")
    make_manifest().write(tmp_path)
    assert is_dataset(tmp_path)


def test_a_folder_without_a_manifest_is_refused(tmp_path):
    with pytest.raises(DatasetError) as raised:
        StoredDataset.open(tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: holds no dataset (no manifest.json)")
    assert "preprocess" in message


def test_a_file_is_not_the_folder_of_a_dataset(tmp_path) -> None:
    (tmp_path / "faces.csv").touch()
    with pytest.raises(DatasetError, match="is a file, not the folder of a dataset; create one"):
        StoredDataset.open(tmp_path / "faces.csv")


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError) as raised:
        StoredDataset.open(tmp_path / "none")
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'none'}: no such folder")
    assert "preprocess" in message


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("", "the file"),
        ("{", "the file"),
        ("[]", "the file"),
        ("null", "the file"),
        ('{"name": "some web application"}', "created"),
    ],
)
def test_a_damaged_manifest_is_refused_with_its_first_wrong_key(tmp_path, text, key):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(DatasetError) as raised:
        StoredDataset.open(tmp_path)
    expected = f"{tmp_path / 'manifest.json'}: is not a valid manifest: {key}: "
    assert str(raised.value).startswith(expected)


def test_a_truncated_manifest_is_refused(tmp_path):
    make_manifest().write(tmp_path)
    text = read_manifest_text(tmp_path).rstrip()
    for end in range(0, len(text), 97):
        (tmp_path / "manifest.json").write_text(text[:end], encoding="utf-8")
        with pytest.raises(DatasetError, match="is not a valid manifest"):
            StoredDataset.open(tmp_path)


@pytest.mark.parametrize(
    ("key", "content"),
    [
        ("format", "other dataset"),
        ("counts", {"training": {}}),
        ("files", [{"path": "a", "split": "train", "rows": "many", "bytes": 1}]),
        ("image", {"size": 48, "dtype": "uint16", "normalization": {}}),
    ],
)
def test_a_wrong_value_is_refused_with_its_key(tmp_path, key, content):
    make_manifest().write(tmp_path)
    changed = {**json.loads(read_manifest_text(tmp_path)), key: content}
    (tmp_path / "manifest.json").write_text(json.dumps(changed))
    with pytest.raises(DatasetError, match=f"is not a valid manifest: {key}"):
        StoredDataset.open(tmp_path)


def open_newer_format(tmp_path: Path, **changes: object) -> str:
    """Return the message about a dataset of a later version."""
    make_manifest().write(tmp_path)
    later = {**json.loads(read_manifest_text(tmp_path)), "format_version": 3, **changes}
    (tmp_path / "manifest.json").write_text(json.dumps(later))
    with pytest.raises(DatasetError) as raised:
        StoredDataset.open(tmp_path)
    return str(raised.value)


def test_a_newer_format_is_refused_by_its_version(tmp_path):
    assert "reads format 2; update fer_pipeline" in open_newer_format(tmp_path)


def test_a_newer_format_is_refused_even_if_its_keys_changed(tmp_path):
    message = open_newer_format(tmp_path, image={"sides": [48, 48], "dtype": "float16"})
    assert "reads format 2; update fer_pipeline" in message


@pytest.mark.parametrize("changes", [{}, {"labels": {"votes": "v.csv", "form": "majority"}}])
def test_an_older_format_is_refused_with_the_job_to_run_again(tmp_path, changes):
    make_manifest().write(tmp_path)
    older = {**json.loads(read_manifest_text(tmp_path)), "format_version": 1, **changes}
    (tmp_path / "manifest.json").write_text(json.dumps(older))
    with pytest.raises(DatasetError) as raised:
        StoredDataset.open(tmp_path)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: has format 1, ")
    assert message.endswith("; run preprocess again")


def test_the_files_of_a_required_split_are_returned(tmp_path):
    write_dataset(tmp_path)
    stored = StoredDataset.open(tmp_path)
    assert stored.require_split(Split.TRAIN) == FILES[:2]
    assert stored.require_split(Split.TEST) == FILES[2:]


def test_a_required_split_that_is_empty_is_an_error(tmp_path):
    write_dataset(tmp_path)
    with pytest.raises(DatasetError) as raised:
        StoredDataset.open(tmp_path).require_split(Split.VALIDATION)
    message = str(raised.value)
    assert message.startswith(f"{tmp_path}: the validation split is empty")
    assert "train (7), validation (0), test (2)" in message


def test_a_split_whose_files_have_no_rows_is_empty(tmp_path):
    empty_file = DataFile(
        path="split=validation/part-e.parquet", split="validation", rows=0, bytes=9
    )
    with pytest.raises(DatasetError, match="the validation split is empty"):
        StoredDataset(tmp_path, make_manifest(files=[*FILES, empty_file])).require_split(
            Split.VALIDATION
        )


def test_a_data_file_that_is_missing_is_an_error(tmp_path):
    write_dataset(tmp_path)
    path = tmp_path / FILES[1].path
    path.unlink()
    with pytest.raises(DatasetError) as raised:
        StoredDataset.open(tmp_path).require_split(Split.TRAIN)
    message = str(raised.value)
    assert message.startswith(f"{path}: is missing")
    assert "6 bytes" in message
    assert message.endswith("; run preprocess again")


@pytest.mark.parametrize("length", [0, 4, 6])
def test_a_data_file_of_another_length_is_an_error(tmp_path, length):
    write_dataset(tmp_path)
    path = tmp_path / FILES[0].path
    path.write_bytes(bytes(length))
    with pytest.raises(DatasetError) as raised:
        StoredDataset.open(tmp_path).require_split(Split.TRAIN)
    message = str(raised.value)
    assert message.startswith(f"{path}: has {length} bytes")
    assert "5 bytes" in message
    assert message.endswith("; run preprocess again")
