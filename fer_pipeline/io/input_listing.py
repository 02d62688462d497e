"""Listing of the files that a user gives as input: files, folders, globs, archives and URLs.

Nothing disappears in silence. A file or folder that cannot be read is listed with the problem, so
that it becomes a quarantined record. Files that are left out, such as hidden ones, are counted.

Names are bytes here (see `fer_pipeline.io.file_names`), and the result does not depend on the
locale. Entries of a folder are sorted by name, so it does not depend on the disk either.
"""

from __future__ import annotations

import collections
import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import bracex
import pyarrow as pa
import pyarrow.compute as pc
from wcmatch import glob

from fer_pipeline.errors import InputError
from fer_pipeline.io import archives
from fer_pipeline.io.file_names import decode_file_name
from fer_pipeline.io.input_reading import is_url
from fer_pipeline.io.paths import get_filesystem, parse_local_path, parse_path
from fer_pipeline.io.threads import map_in_threads
from fer_pipeline.text import one_line

FILE_SCHEMA = pa.schema(
    [
        ("name", pa.string()),
        ("size", pa.int64()),
        ("problem", pa.string()),
        ("archive", pa.string()),
        ("member", pa.int64()),
    ]
)
"""The columns of a listed file. `name`: absolute path (see `file_names`) or URL; for a member of an
archive, the name of the archive followed by that of the member. `size`: in bytes, -1 if unknown.
`problem`: why the file or folder cannot be read; null if nothing is known against it. `archive` and
`member`: name of the archive that contains the file, and where in it (see
`archives.ArchiveMember`); null for other files."""

HIDDEN = "hidden files and folders"
MARKER = "markers of Spark and Hadoop"
ARCHIVE = "archives in a folder, which are read only if they are named"

_MARKERS = frozenset(
    b"_SUCCESS _metadata _common_metadata _temporary _spark_metadata _delta_log".split()
)
_MARKER_PREFIXES = (b"_committed_", b"_started_")
_MARKER_SUFFIX = b"_$folder$"

_MAX_ALTERNATIVES = 1000
_GLOB_FLAGS = glob.BRACE | glob.GLOBSTAR

MapFunction = Callable[[Callable[[Any], Any], Sequence[Any]], Iterable[Any]]
"""A function such as `map`, which may call the given function in parallel."""


@dataclass(frozen=True)
class Folder:
    """A folder to list.

    Attributes:
        path: Absolute path.
        ancestors: Device and inode of the folder and of those that contain it.
    """

    path: bytes
    ancestors: tuple[tuple[int, int], ...]


@dataclass
class FolderListing:
    """The entries of a folder, without those of its subfolders.

    Attributes:
        names: Absolute paths of the files, and of subfolders that cannot be read.
        sizes: Size of each file, in bytes; 0 if there is a problem.
        problems: Why a file or folder cannot be read, by its position in `names`.
        subfolders: Folders in the folder.
        skipped: Number of entries that are left out, by reason.
    """

    names: list[str] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)
    subfolders: list[Folder] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, size: int, problem: str | None = None) -> None:
        """Add a file, or a folder that cannot be read."""
        if problem is not None:
            self.problems[len(self.names)] = problem
        self.names.append(name)
        self.sizes.append(size)

    def to_input_listing(self) -> InputListing:
        """Return the files and the skipped entries, without the subfolders."""
        return InputListing(self.to_table(), self.skipped)

    def to_table(self) -> pa.Table:
        """Return the files as a table of FILE_SCHEMA."""
        count = len(self.names)
        problems = [self.problems.get(row) for row in range(count)] if self.problems else None
        return pa.table(
            [
                pa.array(self.names, pa.string()),
                pa.array(self.sizes, pa.int64()),
                pa.nulls(count, pa.string())
                if problems is None
                else pa.array(problems, pa.string()),
                pa.nulls(count, pa.string()),
                pa.nulls(count, pa.int64()),
            ],
            schema=FILE_SCHEMA,
        )


@dataclass(frozen=True)
class InputListing:
    """The files that the paths of a user refer to.

    Attributes:
        files: One row for each file, or folder that cannot be read, with the columns FILE_SCHEMA.
        skipped: Number of files and folders that are left out, by reason.
    """

    files: pa.Table
    skipped: Counter[str]

    @classmethod
    def join(cls, listings: Iterable[InputListing]) -> InputListing:
        """Return one listing of the files of all given listings, in order."""
        listed = list(listings)
        if len(listed) == 1:
            return listed[0]
        tables = [FILE_SCHEMA.empty_table(), *(listing.files for listing in listed)]
        skipped = sum((listing.skipped for listing in listed), Counter[str]())
        return cls(pa.concat_tables(tables).combine_chunks(), skipped)


def list_inputs(
    locations: Sequence[str], map_folders: MapFunction = map_in_threads
) -> InputListing:
    """List all files that the given locations refer to; a file named twice is listed once.

    Args:
        locations: Files, folders (with all subfolders), archives (.zip, .tar, .tar.gz and so on)
            and globs (`*`, `**`, `?`, `[a-c]`, `{a,b}`), as paths or as URLs of a filesystem that
            fsspec knows. `zip://PATTERN::ARCHIVE` selects members of an archive.
        map_folders: Function that applies the listing of one folder to many folders.

    Raises:
        InputError: A location does not exist or cannot be read, or a glob matches nothing.
    """
    listing = InputListing.join(_list_location(place, map_folders) for place in locations)
    if len(locations) == 1:
        return listing
    return InputListing(_drop_repeated_names(listing.files), listing.skipped)


def require_local_inputs(locations: Iterable[str]) -> None:
    """Check that the local files and folders among the given locations exist; list no folder.

    Args:
        locations: Locations, as in `list_inputs`.

    Raises:
        InputError: A local location does not exist, or a glob matches nothing.
    """
    for location in locations:
        if os.path.lexists(location):
            continue
        _require_few_alternatives(location)
        archive_url = archives.split_archive_url(location)
        if archive_url is not None:
            _find_archive(archive_url[0])
        elif not is_url(location):
            # Only the first: a glob may match millions of files, which are listed later.
            next(_match_local_path(_make_absolute(str(parse_local_path(location)))))


def _drop_repeated_names(files: pa.Table) -> pa.Table:
    """Return the first row of each name, in order."""
    # Two members of an archive may have the same name; they are different files.
    keys = ["name", "archive", "member"]
    numbered = files.append_column("row", pa.array(range(len(files)), pa.int64()))
    first_rows = numbered.group_by(keys).aggregate([("row", "min")]).column("row_min")
    return files.take(first_rows.take(pc.sort_indices(first_rows)))


def _list_location(location: str, map_folders: MapFunction) -> InputListing:
    """List the files of one location, see `list_inputs`."""
    # An existing file may have a name that looks like a URL or a glob.
    exists = os.path.lexists(location)
    if not exists:
        _require_few_alternatives(location)
        archive_url = archives.split_archive_url(location)
        if archive_url is not None:
            archive, pattern = archive_url
            return _list_archive(_find_archive(archive), pattern)
        if location.startswith(("zip://", "tar://")):
            raise InputError(
                f"{location}: expected zip://PATTERN::ARCHIVE, or the path of an archive"
            )
        if is_url(location):
            return _list_url(location)
        location = str(parse_local_path(location))
    path = _make_absolute(location)
    if exists or os.path.lexists(path):
        listing = _list_paths([path], map_folders)
        problem = listing.files["problem"][0].as_py() if len(listing.files) == 1 else None
        if problem and listing.files["name"][0].as_py() == decode_file_name(path):
            raise InputError(f"{decode_file_name(path)}: {problem}")
        return listing
    return _list_paths(sorted(_match_local_path(path)), map_folders)


def _find_archive(location: str) -> str:
    """Return the name of an archive: its absolute path, or its URL.

    Raises:
        InputError: A local archive does not exist.
    """
    if is_url(location):
        return location
    path = _make_absolute(str(parse_local_path(location)))
    name = decode_file_name(path)
    if not os.path.exists(path):
        raise InputError(f"{name}: no such file or folder")
    return name


def _match_local_path(path: bytes) -> Iterator[bytes]:
    """Yield the local path itself if it exists, otherwise those that it matches as a glob.

    Raises:
        InputError: It does not exist, or matches nothing.
    """
    if os.path.lexists(path):
        yield path
        return
    if not glob.is_magic(path, flags=_GLOB_FLAGS):
        raise InputError(f"{decode_file_name(path)}: no such file or folder")
    is_empty = True
    for match in glob.iglob(path, flags=_GLOB_FLAGS):
        is_empty = False
        yield match
    if is_empty:
        raise InputError(f"{decode_file_name(path)}: nothing has such a name")


def _require_few_alternatives(pattern: str) -> None:
    """Check that the braces of a glob do not stand for more names than the libraries accept.

    Raises:
        InputError: They stand for more.
    """
    try:
        collections.deque(bracex.iexpand(pattern, limit=_MAX_ALTERNATIVES), maxlen=0)
    except bracex.ExpansionLimitException:
        raise InputError(
            f"{pattern}: the braces stand for more than {_MAX_ALTERNATIVES} names; use *"
        ) from None


def _make_absolute(path: str) -> bytes:
    """Return the absolute path of a local path, as bytes."""
    return os.path.abspath(os.fsencode(path))


def _list_paths(paths: Sequence[bytes], map_folders: MapFunction) -> InputListing:
    """List local files, and the files in local folders and archives.

    Args:
        paths: Absolute paths. A file that is named here is listed whatever its name is.
        map_folders: Function that applies the listing of one folder to many folders.
    """
    named = FolderListing()
    for path in paths:
        _add_entry(named, path, ())
    parts = [_expand_archives(named)]
    folders = named.subfolders
    while folders:
        listed_folders = map_folders(list_folder, folders)
        folders = []
        for listing, subfolders in listed_folders:
            parts.append(listing)
            folders += subfolders
    return InputListing.join(parts)


def list_folder(folder: Folder) -> tuple[InputListing, list[Folder]]:
    """List the entries of a local folder; links are followed, unless they lead back to it.

    Returns:
        The files in the folder, and its subfolders.
    """
    listing = FolderListing()
    try:
        names = sorted(os.listdir(folder.path))
    except OSError as error:
        problem = f"a folder that cannot be read: {error.strerror}"
        listing.add(decode_file_name(folder.path), 0, problem)
        return listing.to_input_listing(), []
    for name in names:
        path = os.path.join(folder.path, name)
        reason = _find_reason_to_skip(name)
        if not reason and _is_archive_name(name) and os.path.isfile(path):
            reason = ARCHIVE
        if reason:
            listing.skipped[reason] += 1
        else:
            _add_entry(listing, path, folder.ancestors)
    # In columns of Arrow a file takes a fraction of the memory.
    return listing.to_input_listing(), listing.subfolders


def _find_reason_to_skip(name: bytes) -> str | None:
    """Return why an entry of a folder is left out, None if it is not."""
    is_marker = name.startswith(_MARKER_PREFIXES) or name.endswith(_MARKER_SUFFIX)
    if name in _MARKERS or is_marker:
        return MARKER
    return HIDDEN if name.startswith(b".") else None


def _find_reason_to_skip_file(path: str) -> str | None:
    """Return why a file, or a folder that contains it, is left out; None if it is not."""
    # A member of an archive may have such a path.
    parts = [p for p in path.encode("utf-8", "surrogateescape").split(b"/") if p != b".."]
    reason = next(filter(None, map(_find_reason_to_skip, parts)), None)
    return ARCHIVE if not reason and _is_archive_name(parts[-1]) else reason


def _is_archive_name(name: bytes) -> bool:
    """Return whether a file is named like an archive."""
    return archives.is_archive_name(name.decode("utf-8", "replace"))


def _add_entry(listing: FolderListing, path: bytes, ancestors: tuple[tuple[int, int], ...]) -> None:
    """Add a file or folder to a listing; a link counts as what it leads to.

    Args:
        listing: Listing to add to.
        path: Absolute path.
        ancestors: Device and inode of the folders that contain it.
    """
    name = decode_file_name(path)
    try:
        status = os.stat(path)
    except OSError as error:
        is_dangling = os.path.islink(path) and isinstance(error, FileNotFoundError)
        reason = f"a link to nothing ({_read_link(path)})" if is_dangling else error.strerror
        listing.add(name, 0, reason)
        return
    identity = (status.st_dev, status.st_ino)
    if stat.S_ISREG(status.st_mode):
        # A call of the system for each file, unless everybody may read it.
        is_readable = status.st_mode & 0o444 == 0o444 or os.access(path, os.R_OK)
        listing.add(name, status.st_size, None if is_readable else os.strerror(errno.EACCES))
    elif not stat.S_ISDIR(status.st_mode):
        listing.add(name, 0, "neither a file nor a folder")
    elif identity in ancestors:
        listing.add(name, 0, f"a link to a folder that contains it ({_read_link(path)})")
    else:
        listing.subfolders.append(Folder(path, (*ancestors, identity)))


def _read_link(path: bytes) -> str:
    """Return where a link leads to."""
    try:
        return decode_file_name(os.readlink(path))
    except OSError as error:
        return f"unknown: {error.strerror}"


def _list_url(url: str) -> InputListing:
    """List the files of a URL: a file, all files of a folder, or those that match a glob.

    Raises:
        InputError: The filesystem does not answer, or there is no such file.
        StorageError: The package for the filesystem is not installed.
    """
    remote = parse_path(url)
    filesystem, path = get_filesystem(remote), cast(Any, remote).path
    named, in_folders = FolderListing(), FolderListing()
    try:
        for match, properties in _match_remote_path(filesystem, path).items():
            if properties["type"] == "directory":
                _add_remote_folder(in_folders, filesystem, match)
            else:
                _add_remote_file(named, filesystem, match, properties)
    except FileNotFoundError:
        raise InputError(f"{url}: no such file or folder") from None
    except Exception as error:  # each filesystem has its own classes
        raise InputError(f"{url}: cannot be listed: {one_line(error)}") from error
    if not named.names and not in_folders.names:
        raise InputError(f"{url}: contains no files; give a CSV file or a folder of images")
    return InputListing.join([_expand_archives(named), in_folders.to_input_listing()])


def _match_remote_path(filesystem: Any, path: str) -> dict[str, dict[str, Any]]:
    """Return what is known about each remote file or folder that a path or glob names."""
    if not glob.is_magic(path, flags=_GLOB_FLAGS) or filesystem.exists(path):
        return {path: filesystem.info(path)}
    matches: dict[str, dict[str, Any]] = {}
    # fsspec's globs have no braces.
    for pattern in bracex.iexpand(path):
        matches |= filesystem.glob(pattern, detail=True)
    return dict(sorted(matches.items()))


def _add_remote_folder(listing: FolderListing, filesystem: Any, folder: str) -> None:
    """Add all files of a remote folder and of its subfolders to a listing."""
    for path, properties in sorted(filesystem.find(folder, detail=True).items()):
        if path.endswith("/") and not properties.get("size"):
            # An object that an object store shows as a folder.
            continue
        reason = _find_reason_to_skip_file(path.removeprefix(folder.rstrip("/")).strip("/"))
        if reason:
            listing.skipped[reason] += 1
        else:
            _add_remote_file(listing, filesystem, path, properties)


def _add_remote_file(
    listing: FolderListing, filesystem: Any, path: str, properties: Mapping[str, Any]
) -> None:
    """Add a remote file to a listing."""
    size = properties.get("size")
    listing.add(filesystem.unstrip_protocol(path), -1 if size is None else int(size))


def _expand_archives(listing: FolderListing) -> InputListing:
    """Replace each archive in a listing by its members."""
    files = listing.to_table()
    parts = [InputListing(FILE_SCHEMA.empty_table(), listing.skipped)]
    for row, name in enumerate(listing.names):
        if archives.is_archive_name(name) and row not in listing.problems:
            parts.append(_list_archive(name))
        else:
            parts.append(InputListing(files.slice(row, 1), Counter()))
    return InputListing.join(parts)


def _list_archive(name: str, pattern: str = "") -> InputListing:
    """List the members of an archive.

    Args:
        name: Absolute path or URL of the archive.
        pattern: Name or glob of members or of folders in the archive; empty for all.

    Raises:
        InputError: The archive cannot be read, or none of its members has such a name.
    """
    listing, positions = FolderListing(), []
    with archives.open_archive(name) as archive:
        for member in archive.list_members():
            path = member.name.removeprefix("./").lstrip("/")
            if not _is_selected(path, pattern):
                continue
            reason = _find_reason_to_skip_file(path)
            if reason:
                listing.skipped[reason] += 1
                continue
            listing.add(f"{name}/{path}", member.size, member.problem)
            positions.append(member.position)
    if pattern and not positions:
        raise InputError(f"{name}: no member has the name {pattern}")
    count = len(positions)
    files = listing.to_table()
    files = files.set_column(3, "archive", pa.array([name] * count, pa.string()))
    files = files.set_column(4, "member", pa.array(positions, pa.int64()))
    return InputListing(files, listing.skipped)


def _is_selected(path: str, pattern: str) -> bool:
    """Return whether a member of an archive, or a folder that contains it, matches a pattern."""
    if not pattern:
        return True
    if path == pattern or path.startswith(f"{pattern.rstrip('/')}/"):
        return True
    return bool(glob.globmatch(path, pattern, flags=_GLOB_FLAGS))
