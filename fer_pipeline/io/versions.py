"""The package versions and the time that are recorded in each output."""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import PackageNotFoundError, version

from fer_pipeline import __version__


def collect_package_versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of this package, of Python and of further packages.

    Args:
        packages: Distribution names of further packages. Packages that are not installed are left
            out.

    Returns:
        Version of each package by its name.
    """
    versions = {"fer_pipeline": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def format_current_time() -> str:
    """Return the current time in UTC as an ISO 8601 string, with a precision of one second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
