"""One Spark for all these tests, and what they have in common.

The images are random and 8x8 where nothing else is said: small, and no two of them alike.
"""

from __future__ import annotations

import hashlib
import struct
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from fer_pipeline import manifest, storage
from fer_pipeline.config import Config
from fer_pipeline.emotions import FER2013
from fer_pipeline.manifest import Manifest
from fer_pipeline.spark.java import find_java_home
from fer_pipeline.spark.session import spark_session, user_errors
from fer_pipeline.stages.preprocess import preprocess

# What stands on spark-submit's command line; the session's settings are the project's own.
_SUBMIT = (
    "--master local[2] --driver-memory 1g --driver-java-options -XX:TieredStopAtLevel=1"
    " --conf spark.ui.enabled=false --conf spark.ui.showConsoleProgress=false"
    " --conf spark.sql.shuffle.partitions=2 pyspark-shell"
)

Image = npt.NDArray[np.uint8]
Row = dict[str, Any]


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """The session of a job, on two cores; started by the first test that asks for it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("JAVA_HOME", str(find_java_home()))
        patch.setenv("PYSPARK_PYTHON", sys.executable)
        patch.setenv("PYSPARK_SUBMIT_ARGS", _SUBMIT)
        with spark_session("tests") as session:
            session.sparkContext.setLogLevel("ERROR")
            yield session


@dataclass(frozen=True)
class Prepared:
    """A dataset as a reader sees it: the files that the manifest names, read by pyarrow alone."""

    folder: Path
    manifest: Manifest
    rows: list[Row]
    quarantine: list[Row]

    @classmethod
    def read(cls, folder: Path) -> Prepared:
        found = manifest.read(folder)
        rows = []
        for file in found.files:
            # A ParquetFile, not a dataset: that would make a column of the folder `split=train`.
            table = pq.ParquetFile(folder / file.path).read()
            rows += [{"split": str(file.split), **row} for row in table.to_pylist()]
        bad = [
            row
            for path in found.quarantine
            for row in pq.ParquetFile(folder / path).read().to_pylist()
        ]
        return cls(folder, found, sorted(rows, key=_place), bad)

    def of(self, source: Path) -> list[Row]:
        """The rows that came from a file."""
        return [row for row in self.rows if row["source"] == str(source)]

    def bad_of(self, source: Path) -> list[Row]:
        """What is in quarantine of a file."""
        return [row for row in self.quarantine if row["source"] == str(source)]


def _place(row: Row) -> tuple[Any, ...]:
    return row["source"], row["record"], row["variant"], row["replica"]


Prepare = Callable[..., Prepared]


@pytest.fixture(scope="session")
def prepare(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Prepare:
    """Runs the real stage and reads what it wrote.

    The inputs are paths, `to` is the output; all but `overwrite` is configuration.
    """

    def run(
        *inputs: Path | str, to: Path | str | None = None, overwrite: bool = False, **config: Any
    ) -> Prepared:
        config.setdefault("image", {"size": 8})
        config.setdefault("output", {"files_per_split": 2})
        folder = to or tmp_path_factory.mktemp("prepared") / "dataset"
        with user_errors():
            made = preprocess(
                spark, [str(p) for p in inputs], str(folder), Config(**config), overwrite=overwrite
            )
        found = Prepared.read(storage.local_path(folder))
        assert found.manifest == made
        return found

    return run


@pytest.fixture(scope="session")
def picture() -> Callable[..., Image]:
    """Makes image `number`: the same one for the same number, square and random."""

    def make(number: int, side: int = 8) -> Image:
        return np.random.default_rng(number).integers(0, 256, (side, side), np.uint8)

    return make


@pytest.fixture(scope="session")
def line() -> Callable[..., str]:
    """Makes a CSV row `emotion,pixels,Usage`."""

    def make(code: int | str, image: Image, usage: str = "Training") -> str:
        return f"{code},{' '.join(map(str, image.ravel().tolist()))},{usage}"

    return make


@pytest.fixture
def csv_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes a CSV from its rows."""

    def write(name: str, rows: Sequence[str], header: str = "emotion,pixels,Usage") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("".join(f"{row}\n" for row in (header, *rows)), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def stored() -> Callable[..., Row]:
    """The row that a dataset must hold for an image of its own size."""

    def make(
        source: Path | str,
        record: int,
        label: int,
        image: Image,
        split: str = "train",
        variant: str = "original",
        copy: int = 0,
        *,
        original: Image | None = None,
        classes: Sequence[str] = FER2013,
    ) -> Row:
        hashed = image if original is None else original
        digest = hashlib.blake2b(
            struct.pack("<II", *hashed.shape) + hashed.tobytes(), digest_size=16
        )
        return {
            "split": split,
            "image": image.tobytes(),
            "label": label,
            "emotion": classes[label],
            "source": str(source),
            "record": record,
            "image_hash": digest.hexdigest(),
            "variant": variant,
            "replica": copy,
        }

    return make
