"""Files that a listing in Java or a careless reader would lose, and archives of files."""

from __future__ import annotations

import gzip
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest

from fer_pipeline.data.record_batch import make_excerpt
from fer_pipeline.errors import InputError, TooManyBadRowsError
from fer_pipeline.io import input_listing
from fer_pipeline.spark import listed_files
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.images import encode_image

NAMES = (b"12:30.png", b"_DSC1.JPG.png", "käse.png".encode(), "表情.png".encode(), b"t\x84.png")


def write_face(path: Path | bytes, seed: int) -> None:
    """Write an image file; equal seeds give equal images."""
    target = Path(os.fsdecode(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(encode_image(".png", make_image(seed)))


def make_broken_animation() -> bytes:
    """Return an animated PNG whose frames have an unknown filter; OpenCV 4.11 crashed on it."""

    def chunk(name: bytes, content: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(name + content))
        return struct.pack(">I", len(content)) + name + content + check

    def frame(number: int) -> bytes:
        return chunk(b"fcTL", struct.pack(">IIIIIHHBB", number, 48, 48, 0, 0, 1, 10, 0, 0))

    rows = zlib.compress(b"".join(bytes([7]) + bytes(48) for _ in range(48)))
    return b"".join(
        (
            b"\x89PNG\r\n\x1a\n",
            chunk(b"IHDR", struct.pack(">IIBBBBB", 48, 48, 8, 0, 0, 0, 0)),
            chunk(b"acTL", struct.pack(">II", 2, 0)),
            frame(0) + chunk(b"IDAT", rows),
            frame(1) + chunk(b"fdAT", struct.pack(">I", 2) + rows),
            chunk(b"IEND", b""),
        )
    )


def test_no_file_is_lost(prepare, tmp_path) -> None:
    root = tmp_path / "glücklich 12:30"
    for seed, name in enumerate(NAMES):
        write_face(os.fsencode(root / "train/happy") + b"/" + name, seed)
    folder = root / "train/happy"
    (folder / "broken animation.png").write_bytes(make_broken_animation())
    (folder / "dangling.png").symlink_to("/nowhere/1.png")
    (folder / "again").symlink_to("..")
    (root / "train/also again").symlink_to("..")
    os.mkfifo(folder / "pipe.png")

    prepared = prepare(root, input={"max_quarantined_fraction": 0.5})

    sources = [row["source"].removeprefix(f"{folder}/") for row in prepared.rows]
    assert sources == ["12:30.png", "_DSC1.JPG.png", "käse.png", r"t\x84.png", "表情.png"]
    quarantine = {
        row["source"].removeprefix(f"{folder}/").removeprefix(f"{root}/"): (
            row["reason"],
            row["detail"],
        )
        for row in prepared.quarantine
    }
    assert quarantine.pop("broken animation.png")[0] == "undecodable image"
    assert quarantine == {
        "again": ("unreadable file", "a link to a folder that contains it (..)"),
        "train/also again": ("unreadable file", "a link to a folder that contains it (..)"),
        "dangling.png": ("unreadable file", "a link to nothing (/nowhere/1.png)"),
        "pipe.png": ("unreadable file", "neither a file nor a folder"),
    }
    assert prepared.manifest.rows.read == 10


def test_too_many_unreadable_files_are_an_error(prepare, tmp_path) -> None:
    write_face(tmp_path / "train/sad/a.png", 0)
    (tmp_path / "train/sad/b.png").symlink_to("/nowhere")
    with pytest.raises(TooManyBadRowsError, match=r"1 of 2 records are bad.*unreadable file: 1"):
        prepare(tmp_path)


def test_a_stale_checksum_of_hadoop_is_ignored(prepare, tmp_path) -> None:
    path = write_csv(tmp_path / "a.csv", [format_row(0, make_image(0), "Training")])
    block_count = len(path.read_bytes()) // 512 + 1
    (tmp_path / ".a.csv.crc").write_bytes(
        b"crc\0" + struct.pack(">I", 512) + bytes(4 * block_count)
    )
    assert len(prepare(path).rows) == 1


def write_zip(folder: Path, path: Path) -> None:
    """Write a folder to a zip archive."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.rglob("*"):
            archive.write(file, file.relative_to(folder))


def write_tar(folder: Path, path: Path) -> None:
    """Write a folder to a tar archive, compressed according to the name."""
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w:") as archive:
        archive.add(folder, ".")


ARCHIVES: dict[str, Callable[[Path, Path], None]] = {
    "a.zip": write_zip,
    "a.tar": write_tar,
    "a.tar.gz": write_tar,
}


@pytest.fixture(scope="module")
def faces(tmp_path_factory) -> Path:
    """A folder of images, with a damaged one."""
    folder = tmp_path_factory.mktemp("faces")
    for seed in range(12):
        usage, emotion = ("train", "test")[seed % 4 == 3], ("happy", "sad", "fear")[seed % 3]
        write_face(folder / usage / emotion / f"{seed}.png", seed)
    (folder / "train/sad/damaged.png").write_bytes(b"no image")
    return folder


@pytest.fixture(scope="module")
def faces_checksum(faces, prepare) -> str:
    """The checksum of the dataset made from the folder."""
    return prepare(faces, input={"max_quarantined_fraction": 0.5}).manifest.checksum


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_gives_the_same_dataset_as_its_folder(
    prepare, faces, faces_checksum, tmp_path, name
) -> None:
    path = tmp_path / name
    ARCHIVES[name](faces, path)

    prepared = prepare(path, input={"max_quarantined_fraction": 0.5})

    assert prepared.manifest.checksum == faces_checksum
    assert [row["source"] for row in prepared.quarantine] == [f"{path}/train/sad/damaged.png"]
    assert {row["source"] for row in prepared.rows} == {
        f"{path}/{file.relative_to(faces)}" for file in faces.rglob("?*.png")
    } - {f"{path}/train/sad/damaged.png"}


@pytest.mark.parametrize("name", ARCHIVES)
def test_a_csv_file_in_an_archive_is_read(prepare, tmp_path, name) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    rows = [format_row(n % 3, make_image(n), "Training") for n in range(9)]
    plain = write_csv(folder / "fer2013.csv", rows)
    (folder / "README").write_text("no data")
    ARCHIVES[name](folder, tmp_path / name)

    assert prepare(tmp_path / name).manifest.checksum == prepare(plain).manifest.checksum


def write_csv_files(folder: Path, count: int, row_count: int) -> list[Path]:
    """Write CSV files of different images."""
    return [
        write_csv(
            folder / f"{n}.csv", [format_row(0, make_image(100 * n + k)) for k in range(row_count)]
        )
        for n in range(count)
    ]


def test_of_a_truncated_file_the_rest_is_quarantined(prepare, tmp_path, caplog) -> None:
    write_csv_files(tmp_path, 3, 40)
    content = gzip.compress((tmp_path / "1.csv").read_bytes())
    (tmp_path / "1.csv").unlink()
    path = tmp_path / "1.csv.gz"
    path.write_bytes(content[: len(content) // 2])

    prepared = prepare(tmp_path, input={"max_quarantined_fraction": 0.34})

    rows = prepared.rows_from(path)
    assert [row["record"] for row in rows] == list(range(len(rows)))
    assert 10 < len(rows) < 30
    problem = (
        "cannot be read: Compressed file ended before the end-of-stream marker was reached;"
        " the rest is not read"
    )
    assert prepared.quarantine == [
        {
            "source": str(path),
            "record": len(rows),
            "reason": "unreadable file",
            "detail": problem,
            "excerpt": make_excerpt(str(path).encode()),
        }
    ]
    assert len(prepared.rows) == 80 + len(rows)
    assert f"{path}: {problem}" in caplog.messages
    with pytest.raises(TooManyBadRowsError) as error:
        prepare(tmp_path, input={"max_quarantined_fraction": 0.3})
    assert str(error.value).startswith(f"{path}: {problem} (1 of 3 CSV files ")


@pytest.mark.parametrize(
    ("owner", "name"),
    [(input_listing, "list_inputs"), (listed_files.ListedFiles, "_read_layouts")],
)
def test_a_csv_file_that_vanishes_is_quarantined(
    prepare, tmp_path, monkeypatch, small_blocks, owner, name
) -> None:
    """It was there when the driver listed it, and in the other case when it read the header."""
    present, deleted = write_csv_files(tmp_path, 2, 1200)
    function = getattr(owner, name)

    def call_and_delete(*arguments, **options):
        returned = function(*arguments, **options)
        deleted.unlink()
        return returned

    monkeypatch.setattr(owner, name, call_and_delete)
    prepared = prepare(tmp_path, input={"max_quarantined_fraction": 0.5})
    assert len(prepared.rows) == len(prepared.rows_from(present)) == 1200
    assert {(row["source"], row["reason"]) for row in prepared.quarantine} == {
        (str(deleted), "unreadable file")
    }
    # One for each part.
    part_count = len(prepared.quarantine)
    assert part_count > 1
    assert [row["record"] for row in prepared.quarantine] == list(range(part_count))
    missing = [
        row["detail"].partition("; the rest of its part up to byte ") for row in prepared.quarantine
    ]
    assert {problem for problem, _, _ in missing} == {
        "no such file; it may have been deleted since the job started"
    }
    assert int(missing[-1][2].split()[0]) > 150_000


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("a.csv.gz", lambda path: path.write_bytes(zlib.compress(b"x" * 999, wbits=31)[:20]), ""),
        (
            "a.zip",
            lambda path: path.write_bytes(b"PK\x03\x04 and nothing else"),
            "a damaged archive",
        ),
        ("a.tar", lambda path: path.write_bytes(b"no archive"), "a damaged archive"),
    ],
)
def test_the_error_for_a_damaged_file_names_it(prepare, tmp_path, name, write, message) -> None:
    path = tmp_path / name
    write(path)
    with pytest.raises(InputError) as error:
        prepare(path)
    assert str(error.value).startswith(f"{path}: {message}")


@pytest.mark.parametrize("write", [write_zip, write_tar])
def test_the_error_for_an_archive_that_is_named_csv_says_so(
    prepare, faces, tmp_path, write
) -> None:
    write(faces, tmp_path / "a.csv")
    kind = "zip" if write is write_zip else "tar"
    with pytest.raises(InputError, match=rf"a\.csv: is a {kind} archive; rename it to \.{kind}$"):
        prepare(tmp_path / "a.csv")


def test_the_error_for_a_finished_dataset_says_what_it_is(prepare, faces, tmp_path) -> None:
    prepared = prepare(faces, input={"max_quarantined_fraction": 0.5})
    with pytest.raises(InputError, match=r": is a finished dataset, which needs no preprocessing;"):
        prepare(prepared.folder)


def test_a_file_that_vanishes_is_quarantined(prepare, faces, tmp_path, monkeypatch) -> None:
    """It was there when the driver listed it."""
    write_face(tmp_path / "train/happy/a.png", 0)
    write_face(tmp_path / "train/happy/b.png", 1)
    list_inputs = input_listing.list_inputs

    def list_and_delete(*arguments):
        listing = list_inputs(*arguments)
        (tmp_path / "train/happy/b.png").unlink()
        return listing

    monkeypatch.setattr(input_listing, "list_inputs", list_and_delete)
    prepared = prepare(tmp_path, input={"max_quarantined_fraction": 0.5})
    assert [row["detail"] for row in prepared.quarantine] == [
        "no such file; it may have been deleted since the job started"
    ]


def test_many_folders_are_listed_by_spark_tasks(
    prepare, faces, faces_checksum, monkeypatch
) -> None:

    monkeypatch.setattr(listed_files, "_MANY_FOLDERS", 1)
    assert (
        prepare(faces, input={"max_quarantined_fraction": 0.5}).manifest.checksum == faces_checksum
    )
