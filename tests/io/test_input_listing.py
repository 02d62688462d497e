"""Listing of input files: what is found, what is left out, and what cannot be read."""

from __future__ import annotations

import io
import multiprocessing
import os
import tarfile
import tempfile
import zipfile
from pathlib import Path
from typing import Literal

import pytest

from fer_pipeline.errors import InputError, StorageError, UnreadableFileError
from fer_pipeline.io import input_listing
from fer_pipeline.io.input_listing import ARCHIVE, HIDDEN, MARKER, InputListing


def list_inputs(locations: list[str]) -> InputListing:
    """Check locations and list their files, as the jobs do."""
    input_listing.require_local_inputs(locations)
    return input_listing.list_inputs(locations)


def write_files(root: Path, *names: str | bytes) -> None:
    """Write small files into a folder; the content of each is its name."""
    for name in names:
        path = root / os.fsdecode(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))


def get_names(listing: InputListing, root: Path) -> list[str]:
    """Return the listed names, relative to a folder."""
    return [name.removeprefix(f"{root}/") for name in listing.files["name"].to_pylist()]


def get_problems(listing: InputListing, root: Path) -> dict[str, str]:
    """Return the problem of each file that has one, by name relative to a folder."""
    names = get_names(listing, root)
    problems = zip(names, listing.files["problem"].to_pylist(), strict=True)
    return {name: problem for name, problem in problems if problem}


def become_ordinary_user() -> None:
    """Give up the rights of the superuser, who may read everything."""
    if os.geteuid() == 0:
        os.setuid(65534)


class TestFolders:
    def test_all_files_are_listed_folder_by_folder(self, tmp_path) -> None:
        write_files(tmp_path, "b.png", "a.png", "z/c.png", "y/d.png", "y/x/e.png", "_DSC1.JPG")
        listing = list_inputs([str(tmp_path)])
        expected = ["_DSC1.JPG", "a.png", "b.png", "y/d.png", "z/c.png", "y/x/e.png"]
        assert get_names(listing, tmp_path) == expected
        assert listing.files["size"].to_pylist() == [len(name) for name in expected]
        assert listing.skipped == {}

    def test_what_is_left_out_is_counted(self, tmp_path) -> None:
        write_files(tmp_path, "a.png", ".b.png", ".git/c.png", "_SUCCESS", "e.zip")
        (tmp_path / "folder.zip").mkdir()
        write_files(tmp_path, "folder.zip/f.png", "_committed_123", "sub_$folder$")
        listing = list_inputs([str(tmp_path)])
        assert get_names(listing, tmp_path) == ["a.png", "folder.zip/f.png"]
        assert listing.skipped == {HIDDEN: 2, MARKER: 3, ARCHIVE: 1}

    def test_a_file_that_is_named_is_always_listed(self, tmp_path) -> None:
        write_files(tmp_path, ".hidden.png", "_SUCCESS")
        for name in (".hidden.png", "_SUCCESS"):
            assert get_names(list_inputs([str(tmp_path / name)]), tmp_path) == [name]

    def test_names_are_bytes(self, tmp_path) -> None:
        write_files(tmp_path, b"t\x84glich.png", "表情.png", "käse.png", "12:30.png")
        names = get_names(list_inputs([str(tmp_path)]), tmp_path)
        assert names == ["12:30.png", "käse.png", r"t\x84glich.png", "表情.png"]

    def test_links_count_as_what_they_lead_to(self, tmp_path) -> None:
        write_files(tmp_path, "in/angry/a.png", "elsewhere/b.png", "elsewhere/c.png")
        (tmp_path / "in/happy").symlink_to(tmp_path / "elsewhere")
        (tmp_path / "in/angry/b.png").symlink_to(tmp_path / "elsewhere/b.png")
        listing = list_inputs([str(tmp_path / "in")])
        expected = ["angry/a.png", "angry/b.png", "happy/b.png", "happy/c.png"]
        assert get_names(listing, tmp_path / "in") == expected

    def test_links_to_containing_folders_are_problems(self, tmp_path) -> None:
        write_files(tmp_path, "a/b.png")
        for name, target in {"a/up": "..", "a/self": ".", "a/top": tmp_path}.items():
            (tmp_path / name).symlink_to(target)
        listing = list_inputs([str(tmp_path)])
        assert get_names(listing, tmp_path) == ["a/b.png", "a/self", "a/top", "a/up"]
        problems = get_problems(listing, tmp_path)
        assert problems["a/up"] == "a link to a folder that contains it (..)"
        assert problems.keys() == {"a/up", "a/self", "a/top"}

    def test_links_between_two_folders_end(self, tmp_path) -> None:
        write_files(tmp_path, "a/1.png", "b/2.png")
        (tmp_path / "a/to_b").symlink_to(tmp_path / "b")
        (tmp_path / "b/to_a").symlink_to(tmp_path / "a")
        listing = list_inputs([str(tmp_path)])
        files = ["a/1.png", "b/2.png", "a/to_b/2.png", "b/to_a/1.png"]
        problems = ["a/to_b/to_a", "b/to_a/to_b"]
        assert sorted(get_names(listing, tmp_path)) == sorted([*files, *problems])
        assert get_problems(listing, tmp_path).keys() == {"a/to_b/to_a", "b/to_a/to_b"}

    def test_what_cannot_be_read_is_a_problem(self, tmp_path) -> None:
        write_files(tmp_path, "a.png")
        (tmp_path / "dangling.png").symlink_to("/nowhere/1.png")
        (tmp_path / "circle.png").symlink_to("circle.png")
        os.mkfifo(tmp_path / "pipe.png")
        problems = get_problems(list_inputs([str(tmp_path)]), tmp_path)
        assert problems == {
            "dangling.png": "a link to nothing (/nowhere/1.png)",
            "circle.png": "Too many levels of symbolic links",
            "pipe.png": "neither a file nor a folder",
        }

    def test_what_must_not_be_read_is_a_problem(self) -> None:
        # Not in tmp_path, which only this user may enter.
        with tempfile.TemporaryDirectory() as name:
            root = Path(name)
            root.chmod(0o755)
            write_files(root, "a.png", "secret.png", "lost+found/b.png")
            (root / "secret.png").chmod(0)
            (root / "lost+found").chmod(0)
            context = multiprocessing.get_context("fork")
            with context.Pool(1, initializer=become_ordinary_user) as pool:
                listing = pool.apply(list_inputs, ([name],))
            assert sorted(get_names(listing, root)) == ["a.png", "lost+found", "secret.png"]
            assert get_problems(listing, root) == {
                "lost+found": "a folder that cannot be read: Permission denied",
                "secret.png": "Permission denied",
            }
            (root / "lost+found").chmod(0o755)


class TestLocations:
    def test_files_that_are_named_twice_are_listed_once(self, tmp_path) -> None:
        write_files(tmp_path, "a.png", "b.png", "c/d.png")
        locations = [tmp_path / "b.png", tmp_path, tmp_path / "c", tmp_path / "*.png"]
        listing = list_inputs([str(location) for location in locations])
        assert get_names(listing, tmp_path) == ["b.png", "a.png", "c/d.png"]

    @pytest.mark.parametrize(
        ("pattern", "expected"),
        [
            ("*.png", ["a.png", "b.png"]),
            ("[ab].png", ["a.png", "b.png"]),
            ("?.{png,jpg}", ["a.png", "b.png", "c.jpg"]),
            ("**/*.png", ["a.png", "b.png", "x/d.png", "x/y/e.png"]),
            ("*/y", ["x/y/e.png"]),
            ("[!a].png", ["b.png"]),
        ],
    )
    def test_globs(self, tmp_path, pattern, expected) -> None:
        write_files(tmp_path, "a.png", "b.png", "c.jpg", "x/d.png", "x/y/e.png")
        listing = list_inputs([str(tmp_path / pattern)])
        assert sorted(get_names(listing, tmp_path)) == expected

    @pytest.mark.parametrize("name", ["[a] {b,c}*?.png", "s3://x.png", "12:30.png", "fer:1.png"])
    def test_an_existing_file_may_look_like_a_glob_or_url(
        self, tmp_path, monkeypatch, name
    ) -> None:
        monkeypatch.chdir(tmp_path)
        write_files(tmp_path, name)
        listing = list_inputs([name])
        assert get_names(listing, tmp_path) == [name.replace("//", "/")]

    def test_a_file_url_is_a_path(self, tmp_path) -> None:
        write_files(tmp_path, "a b.png")
        for url in (f"file://{tmp_path}/a%20b.png", f"file:{tmp_path}/a*.png"):
            assert get_names(list_inputs([url]), tmp_path) == ["a b.png"]

    def test_a_tilde_is_the_home_folder(self, tmp_path, monkeypatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        write_files(tmp_path, "a.png")
        assert get_names(list_inputs(["~/a.png"]), tmp_path) == ["a.png"]

    @pytest.mark.parametrize(
        ("name", "message"), [("no.png", "no such file or folder"), ("no*.png", "nothing has such")]
    )
    def test_a_missing_file_is_an_error(self, tmp_path, name, message) -> None:
        with pytest.raises(InputError) as error:
            list_inputs([str(tmp_path / name)])
        assert str(error.value).startswith(f"{tmp_path}/{name}: {message}")

    def test_too_many_alternatives_are_an_error(self, tmp_path) -> None:
        for pattern in (f"{tmp_path}/{{1..99999999}}.png", "zip://{1..99999999}::a.zip"):
            with pytest.raises(InputError, match=r"the braces stand for more than 1000 names"):
                list_inputs([pattern])

    def test_an_empty_path_is_an_error(self) -> None:
        with pytest.raises(StorageError, match="a path is empty"):
            list_inputs([""])

    def test_a_named_link_to_nothing_is_an_error(self, tmp_path) -> None:
        (tmp_path / "a.png").symlink_to("/nowhere")
        with pytest.raises(InputError, match=r"a\.png: a link to nothing \(/nowhere\)$"):
            list_inputs([str(tmp_path / "a.png")])


def write_zip(path: Path, *names: str) -> None:
    """Write a zip archive; the content of each member is its name."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, "" if name.endswith("/") else name)


Mode = Literal["w:", "w:gz", "w:bz2", "w:xz"]
MODES: dict[str, Mode] = {
    ".tar": "w:",
    ".gz": "w:gz",
    ".tgz": "w:gz",
    ".bz2": "w:bz2",
    ".xz": "w:xz",
}


def write_tar(path: Path, mode: Mode, *names: str) -> None:
    """Write a tar archive; the content of each member is its name."""
    with tarfile.open(path, mode) as archive:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = len(name.encode())
            archive.addfile(entry, io.BytesIO(name.encode()))


class TestArchives:
    NAMES = ("train/happy/ä.png", "train/sad/b.png", "__MACOSX/._c.png", "_SUCCESS", "./e.png")

    @pytest.fixture(params=["a.zip", "a.tar", "a.tar.gz", "a.tgz", "a.tar.bz2", "a.tar.xz"])
    def archive(self, request, tmp_path) -> Path:
        """An archive."""
        path = tmp_path / request.param
        if path.suffix == ".zip":
            write_zip(path, "train/", *self.NAMES)
        else:
            write_tar(path, MODES[path.suffix], *self.NAMES)
        return path

    def test_the_members_are_listed(self, archive, tmp_path) -> None:
        listing = list_inputs([str(archive)])
        members = ["train/happy/ä.png", "train/sad/b.png", "e.png"]
        assert get_names(listing, archive) == members
        assert set(listing.files["archive"].to_pylist()) == {str(archive)}
        assert listing.skipped == {HIDDEN: 1, MARKER: 1}

    def test_a_url_selects_members(self, archive, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        scheme = "zip" if archive.suffix == ".zip" else "tar"
        listing = list_inputs([f"{scheme}://train/*/b.*::{archive.name}"])
        assert get_names(listing, archive) == ["train/sad/b.png"]
        assert len(list_inputs([f"{scheme}://train::{archive}"]).files) == 2
        with pytest.raises(InputError, match=r": no member has the name test/\*$"):
            list_inputs([f"{scheme}://test/*::{archive}"])

    def test_a_damaged_archive_is_an_error(self, archive) -> None:
        archive.write_bytes(archive.read_bytes()[:60])
        with pytest.raises(InputError) as error:
            list_inputs([str(archive)])
        assert str(error.value).startswith(f"{archive}: ")
        assert "\n" not in str(error.value)

    @pytest.mark.parametrize(
        ("damage", "message"),
        [
            # For tarfile these are archives of fewer members.
            (lambda tar: tar[: 3 * 1024], "truncated or damaged at byte 3072: empty header"),
            (lambda tar: tar[:3072] + b"x" * 512 + tar[3584:], "damaged at byte 3072: "),
            (lambda tar: tar[:3072] + bytes(512) + tar[3584:], "more follows its end"),
            (lambda tar: tar + tar, "more follows its end, such as a second archive"),
            (lambda tar: tar[: 3 * 1024 + 300], "truncated or damaged at byte 3072: "),
            (lambda tar: tar[: 3 * 1024 + 514], "unexpected end of data"),
        ],
    )
    def test_no_member_of_a_damaged_tar_is_lost(self, tmp_path, damage, message) -> None:
        path = tmp_path / "a.tar"
        write_tar(path, "w:", *(f"{n}.png" for n in range(8)))
        assert len(list_inputs([str(path)]).files) == 8
        path.write_bytes(damage(path.read_bytes()))
        with pytest.raises(UnreadableFileError) as error:
            list_inputs([str(path)])
        assert str(error.value).startswith(f"{path}: a damaged archive (")
        assert message in str(error.value)

    def test_the_checksum_of_a_compressed_tar_is_compared(self, tmp_path) -> None:
        path = tmp_path / "a.tar.gz"
        write_tar(path, "w:gz", "a.png")
        content = bytearray(path.read_bytes())
        content[-5] ^= 1
        path.write_bytes(content)
        with pytest.raises(UnreadableFileError, match=r"a damaged archive \(CRC check failed"):
            list_inputs([str(path)])

    def test_an_archive_of_another_kind_is_an_error(self, tmp_path) -> None:
        write_zip(tmp_path / "a.tar", "b.png")
        with pytest.raises(UnreadableFileError, match=r"\(it is not a tar archive\)$"):
            list_inputs([str(tmp_path / "a.tar")])

    @pytest.mark.parametrize(
        ("location", "message"),
        [
            ("zip://*::no.zip", "no.zip: no such file or folder"),
            ("zip://a.zip", "zip://a.zip: expected zip://PATTERN::ARCHIVE"),
        ],
    )
    def test_a_wrong_url_of_an_archive_is_an_error(
        self, tmp_path, monkeypatch, location, message
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(InputError, match=message):
            list_inputs([location])

    def test_members_may_have_any_name(self, tmp_path) -> None:
        """Members are not unpacked, so a path that leads out of the archive does no harm."""
        names = ("../up.png", "/b.png", "c//d.png", "e\nf.png", "a/../.hidden/g.png", "C:\\h.png")
        write_zip(tmp_path / "a.zip", *names)
        listing = list_inputs([str(tmp_path / "a.zip")])
        expected = ["../up.png", "b.png", "c//d.png", "e\nf.png", "C:\\h.png"]
        assert get_names(listing, tmp_path / "a.zip") == expected
        assert listing.skipped == {HIDDEN: 1}

    @pytest.mark.parametrize(
        ("written", "listed"),
        [("käse".encode(), "käse"), (b"k\x84se", "käse"), ("表情".encode(), "表情")],
    )
    def test_names_in_a_zip_may_be_in_utf_8_or_in_the_encoding_of_dos(
        self, tmp_path, written, listed
    ) -> None:
        placeholder = "x" * len(written)
        write_zip(tmp_path / "a.zip", f"{placeholder}.png")
        content = (tmp_path / "a.zip").read_bytes()
        (tmp_path / "a.zip").write_bytes(content.replace(placeholder.encode(), written))
        listing = list_inputs([str(tmp_path / "a.zip")])
        assert get_names(listing, tmp_path / "a.zip") == [f"{listed}.png"]

    def test_equal_names_in_an_archive_are_different_files(self, tmp_path) -> None:
        write_tar(tmp_path / "a.tar", "w:", "a.png", "a.png")
        listing = list_inputs([str(tmp_path / "a.tar"), str(tmp_path / "a.tar")])
        assert get_names(listing, tmp_path / "a.tar") == ["a.png", "a.png"]

    def test_links_in_a_tar_are_problems(self, tmp_path) -> None:
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            entry = tarfile.TarInfo("b.png")
            entry.type, entry.linkname = tarfile.SYMTYPE, "c.png"
            archive.addfile(entry)
        problems = get_problems(list_inputs([str(tmp_path / "a.tar")]), tmp_path)
        assert problems == {"a.tar/b.png": "a link, device or sparse file in an archive"}
