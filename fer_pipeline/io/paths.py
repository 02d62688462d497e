"""Local paths and URLs of other filesystems, as objects with the methods of `pathlib.Path`.

A path is a local path, a `file:` URL, or a URL of any filesystem that fsspec knows, such as
`s3://bucket/key`.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote, urlparse

from fer_pipeline.errors import StorageError
from fer_pipeline.extras import suggest_install

_URL = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+:")


def parse_path(location: str | Path) -> Path:
    """Convert a path or URL given by the user to a path object.

    For a URL, this also opens the filesystem, so that a missing package is reported at once.

    Args:
        location: A local path, in which `~` is expanded, or a URL. A `UPath` is returned unchanged.

    Returns:
        A `pathlib.Path` if the location is local; otherwise a `UPath`, which has the same methods.

    Raises:
        StorageError: The URL's scheme is unknown, the package for its filesystem is not installed,
            the filesystem cannot be reached, or a `file:` URL names another host.
    """
    if not isinstance(location, str | Path):
        return location
    url = str(location)
    if not _URL.match(url) or urlparse(url).scheme == "file":
        return parse_local_path(url)
    # Imported only for URLs: local paths do not need fsspec.
    from upath import UPath

    scheme = urlparse(url).scheme
    try:
        # Other processes write there too, so a listing must not be cached.
        path = cast(Path, UPath(url, use_listings_cache=False))
        get_filesystem(path)
    except ImportError as error:
        remedy = f"; {suggest_install('s3fs')}" if scheme in ("s3", "s3a") else ""
        raise StorageError(f"{url}: {scheme}: needs a package: {error}{remedy}") from error
    except (ValueError, OSError) as error:
        raise StorageError(f"{url}: cannot be reached: {error}") from error
    return path


def parse_local_path(location: str | Path) -> Path:
    """Convert a local path or a `file:` URL to a `pathlib.Path`.

    Args:
        location: A local path, in which `~` is expanded, or a `file:` URL.

    Raises:
        StorageError: The location is empty, begins with `~` and the name of an unknown user, is a
            URL with a scheme other than `file`, or is a `file:` URL that names another host.
    """
    text = str(location)
    if not text:
        raise StorageError("a path is empty; give that of a file or folder")
    if not _URL.match(text):
        try:
            return Path(text).expanduser()
        except RuntimeError:
            raise StorageError(f"{text}: the home folder of this user is unknown") from None
    url = urlparse(text)
    if url.scheme != "file" or url.netloc not in ("", "localhost"):
        raise StorageError(f"{text}: expected a local path or a file: URL")
    # "?" and "#" are ordinary characters of a file name, but urlparse splits the text at them.
    tail = text.partition(url.path)[2] if url.path else ""
    return Path(unquote(url.path + tail))


def is_local(path: Path) -> bool:
    """Return whether a path is a local path, and not a `UPath` (a URL of another filesystem)."""
    return isinstance(path, Path)


def get_filesystem(path: Path) -> Any:
    """Return the fsspec filesystem of a `UPath`."""
    return cast(Any, path).fs


def to_spark_url(path: Path) -> str:
    """Return the URL of a path in the form that Spark reads.

    Special characters are not percent-encoded, and the scheme `s3:` becomes `s3a:`.
    """
    if is_local(path):
        # Path.as_uri would quote the "=" of "split=train", and Spark does not unquote paths.
        return f"file:{path.absolute()}"
    return re.sub(r"^s3:", "s3a:", str(path))
