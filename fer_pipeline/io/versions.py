"""The package versions and the time that an output records."""

from __future__ import annotations

import datetime
import platform
from importlib.metadata import PackageNotFoundError, version

from fer_pipeline import __version__


def collect_package_versions(*packages: str) -> dict[str, str]:
    """Return the versions of this package, of Python and of the named packages.

    Args:
        packages: Distribution names; those that are not installed are left out, since TensorFlow
            comes under more than one.
    """
    versions = {"fer_pipeline": __version__, "python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


def format_current_time() -> str:
    """Return the current time in UTC, in ISO 8601, to the second."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
