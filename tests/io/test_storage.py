import errno
import os
import stat
from pathlib import Path

import pytest

from fer_pipeline.errors import StorageError
from fer_pipeline.io.paths import is_local, parse_local_path, parse_path, to_spark_url
from fer_pipeline.io.storage import (
    append_text,
    atomic_write,
    create_data_file,
    move,
    read_text,
    remove_empty_folder,
    remove_folder,
    write_text,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/a/b", "/a/b"),
        ("a/b", "a/b"),
        ("/a b/c%20d", "/a b/c%20d"),
        ("a/b:c", "a/b:c"),
        ("file:/a/b", "/a/b"),
        ("file:///a/b", "/a/b"),
        ("FILE:///a/b", "/a/b"),
        ("file://localhost/a/b", "/a/b"),
        ("file:///a%20b/%C3%A9", "/a b/\u00e9"),
        (Path("/a/b"), "/a/b"),
        (Path("file:///a/b"), "/a/b"),
    ],
)
def test_a_path_or_a_file_url_is_a_local_path(text, expected):
    assert parse_local_path(text) == Path(expected)


@pytest.mark.parametrize(
    ("text", "message"),
    [("", "a path is empty"), ("~nobody here/x", "~nobody here/x: the home folder")],
)
def test_a_path_that_stands_for_nothing_is_an_error(text, message):
    with pytest.raises(StorageError, match=message):
        parse_path(text)


def test_a_tilde_is_the_home_folder(monkeypatch):
    monkeypatch.setenv("HOME", "/home/someone")
    assert parse_local_path("~/data") == Path("/home/someone/data")


@pytest.mark.parametrize("url", ["s3://bucket/key", "hdfs://host/x", "file://host/a", "gs://b"])
def test_other_urls_are_not_local(url):
    with pytest.raises(StorageError) as raised:
        parse_local_path(url)
    message = str(raised.value)
    assert message.startswith(f"{url}: ")
    assert "local path" in message


@pytest.mark.parametrize("text", ["/a/b", "file:///a/b", "a:b", Path("/a/b")])
def test_a_path_or_a_file_url_is_local(text):
    assert parse_path(text) == parse_local_path(text)
    assert is_local(parse_path(text))


def test_another_url_has_the_methods_of_a_path():
    folder = parse_path("memory://faces/run")
    assert not is_local(folder)
    assert str(folder / "model.json") == "memory://faces/run/model.json"
    write_text(folder / "model.json", "{}")
    append_text(folder / "model.json", "\n")
    assert [file.name for file in folder.iterdir()] == ["model.json"]
    assert read_text(folder / "model.json") == "{}\n"
    move(folder / "model.json", folder / "moved.json")
    assert [file.name for file in folder.iterdir()] == ["moved.json"]
    with pytest.raises(StorageError, match="memory://faces/run/none: no such file"):
        read_text(folder / "none")
    remove_empty_folder(folder)
    assert (folder / "moved.json").is_file()
    remove_folder(folder)
    assert not folder.exists()
    remove_folder(folder)
    # A path object is returned as it is.
    assert parse_path(folder) is folder


@pytest.mark.parametrize(
    ("text", "url"),
    [("/a b/c%20=d", "file:/a b/c%20=d"), ("memory://a/b", "memory://a/b")],
)
def test_spark_gets_a_url_that_it_does_not_decode(text, url):
    assert to_spark_url(parse_path(text)) == url


def test_spark_gets_an_s3a_url_for_s3():
    assert to_spark_url(parse_path("s3://bucket/split=train/x")) == "s3a://bucket/split=train/x"


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("file:///data/set#2", "/data/set#2"),
        ("file:///data/set?2", "/data/set?2"),
        ("file:/data/a;b#c", "/data/a;b#c"),
    ],
)
def test_no_part_of_a_url_is_lost(url, expected):
    """A dataset would otherwise be written to another folder, such as /data/set."""
    assert str(parse_local_path(url)) == expected


def read_files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8")
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_text_is_written_and_its_folders_are_created(tmp_path):
    write_text(tmp_path / "a" / "b" / "c.txt", "gr\u00fcn\n")
    assert read_files(tmp_path) == {"a/b/c.txt": "gr\u00fcn\n"}
    assert read_text(tmp_path / "a" / "b" / "c.txt") == "gr\u00fcn\n"


def test_a_second_text_replaces_the_first(tmp_path):
    write_text(tmp_path / "c.txt", "first")
    write_text(tmp_path / "c.txt", "second")
    assert read_files(tmp_path) == {"c.txt": "second"}


def test_the_old_file_exists_until_the_block_ends(tmp_path):
    path = tmp_path / "model.keras"
    path.write_text("old")
    with atomic_write(path) as temporary:
        assert temporary.parent == tmp_path
        assert temporary.suffix == ".keras"
        assert temporary.name.startswith(".")
        temporary.write_text("half")
        assert path.read_text() == "old"
        temporary.write_text("new")
    assert read_files(tmp_path) == {"model.keras": "new"}


@pytest.mark.parametrize("error", [ValueError("x"), KeyboardInterrupt(), SystemExit(1)])
@pytest.mark.parametrize("before", [{}, {"c.txt": "old"}])
def test_an_error_in_the_block_leaves_the_folder_unchanged(tmp_path, error, before):
    for name, text in before.items():
        (tmp_path / name).write_text(text)

    def fail() -> None:
        with atomic_write(tmp_path / "c.txt") as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        fail()
    assert read_files(tmp_path) == before


def test_a_full_disk_is_a_storage_error_and_leaves_no_file(tmp_path):
    disk_full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def fail() -> None:
        with atomic_write(tmp_path / "c.txt") as temporary:
            temporary.write_text("half")
            raise disk_full

    with pytest.raises(StorageError) as raised:
        fail()
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'c.txt'}: cannot be written")
    assert "No space left on device" in message
    assert read_files(tmp_path) == {}


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_a_file_has_the_usual_permissions(tmp_path, umask):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "written.txt", "x")
        (tmp_path / "usual.txt").write_text("x")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"written.txt": 0o666 & ~umask, "usual.txt": 0o666 & ~umask}


def test_a_folder_in_place_of_the_file_is_a_storage_error(tmp_path):
    (tmp_path / "c.txt").mkdir()
    with pytest.raises(StorageError, match=r"c\.txt: cannot be written: Is a directory"):
        write_text(tmp_path / "c.txt", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["c.txt"]


def test_a_file_in_place_of_the_folder_is_a_storage_error(tmp_path):
    (tmp_path / "f").write_text("x")
    with pytest.raises(StorageError, match="cannot be written"):
        write_text(tmp_path / "f" / "c.txt", "x")
    with (
        pytest.raises(StorageError, match="cannot be written"),
        create_data_file(tmp_path / "f" / "c"),
    ):
        pass
    assert read_files(tmp_path) == {"f": "x"}


def test_a_missing_file_is_a_storage_error(tmp_path):
    with pytest.raises(StorageError) as raised:
        read_text(tmp_path / "none")
    assert str(raised.value).startswith(f"{tmp_path / 'none'}: no such file")


def test_a_folder_or_a_binary_file_is_a_storage_error(tmp_path):
    (tmp_path / "bytes").write_bytes(b"\xff\xfe\x00")
    for path in (tmp_path, tmp_path / "bytes"):
        with pytest.raises(StorageError, match="cannot be read"):
            read_text(path)


def test_a_data_file_is_written_at_its_path(tmp_path):
    path = tmp_path / "split=train" / "part-a.parquet"
    with create_data_file(path) as local_path:
        assert local_path == str(path)
        Path(local_path).write_text("rows")
    assert read_files(tmp_path) == {"split=train/part-a.parquet": "rows"}


def test_a_data_file_that_fills_the_disk_is_deleted(tmp_path):
    path = tmp_path / "part-a.parquet"

    def fail() -> None:
        with create_data_file(path) as local_path:
            Path(local_path).write_text("half")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(StorageError) as raised:
        fail()
    message = str(raised.value)
    assert message.startswith(f"{path}: cannot be written")
    assert "No space left on device" in message
    assert read_files(tmp_path) == {}
