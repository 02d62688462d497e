"""Small real datasets, as preprocess writes them but without Spark."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline import arrow, schema, synthetic
from fer_pipeline.learning.model import speed
from fer_pipeline.manifest import DataFile, ImageInfo, LabelInfo, Manifest, RowCounts
from fer_pipeline.pixels import Normalization

SIZE = 16
CLASSES = ("angry", "happy", "sad")
CHECKSUM = "fedcba9876543210"
# The rows of each row group, file by file: no two files are alike, and the last groups are uneven.
LAYOUT = ((16, 16, 7), (16, 16, 16, 3), (16, 9))
ROWS = sum(map(sum, LAYOUT))


@dataclass(frozen=True)
class Rowset:
    """The rows of one split, in stored order."""

    pixels: npt.NDArray[np.uint8]  # (n, size, size)
    labels: npt.NDArray[np.int32]
    votes: npt.NDArray[np.float32] | None = None  # (n, classes): stored where it is given

    def origin(self, row: int) -> dict[str, Any]:
        """Where a row comes from; nothing of it can be guessed from its place."""
        return {
            "source": f"file:///faces/{row % 3}.csv",
            "record": 2**33 + 1000 - 7 * row,
            "image_hash": f"{row * 2654435761:032x}",
            "variant": ("original", "flip")[row % 2],
            "replica": row % 4,
        }


def faces(rows: int, seed: int, size: int = SIZE) -> Rowset:
    """Drawn faces; the first shows every pixel value, and no two are alike."""
    random = np.random.default_rng(seed)
    labels = random.integers(len(CLASSES), size=rows).astype(np.int32)
    pixels = np.stack([synthetic.draw_face(int(label), random, size) for label in labels])
    ramp = (np.arange(size * size) % 256).astype(np.uint8)
    pixels[0] = random.permutation(ramp).reshape(size, size)
    assert len({face.tobytes() for face in pixels}) == rows
    return Rowset(pixels, labels)


def column(flat: npt.NDArray[np.uint8], dtype: str, normalization: Normalization) -> pa.Array:
    """Flat pixels, (n, size * size), in the stored form."""
    if dtype == "uint8":
        return arrow.binary_column(flat)
    ends = pa.array(np.arange(len(flat) + 1, dtype=np.int32) * flat.shape[1])
    return pa.ListArray.from_arrays(ends, pa.array(normalization.table()[flat].ravel()))


def write(
    folder: Path,
    splits: Mapping[str, Rowset],
    *,
    dtype: str = "uint8",
    normalization: Normalization | None = None,
    layout: Sequence[Sequence[int]] = LAYOUT,
    size: int = SIZE,
    images: Callable[[pa.Array, int], pa.Array] = lambda stored, number: stored,
    claimed: Callable[[DataFile], DataFile] = lambda file: file,
) -> Path:
    """Writes a dataset.

    Args:
        folder: Where.
        splits: The rows of each split.
        dtype: How the pixels are stored.
        normalization: What a network sees of them; centered by default.
        layout: The rows of each row group, file by file; a file that gets no rows is not written.
        size: What the manifest says of the images.
        images: Changes the stored pixels of a row group, the number of which it is told.
        claimed: Changes what the manifest says of a file.
    """
    normalization = normalization or Normalization.centered()
    soft = any(rows.votes is not None for rows in splits.values())
    columns = arrow.arrow_schema(schema.dataset_columns(dtype, votes=soft))
    files = []
    for split, rows in splits.items():
        start = number = 0
        for index, groups in enumerate(layout):
            if start >= len(rows.labels):
                break
            path = folder / f"split={split}" / f"part-{index:05d}-{'0' * 8}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            begin = start
            with pq.ParquetWriter(path, columns, compression="zstd") as writer:
                for group in groups:
                    part = range(start, min(start + group, len(rows.labels)))
                    if not part:
                        break
                    flat = rows.pixels[part].reshape(len(part), -1)
                    labels = rows.labels[part]
                    origins = [rows.origin(row) for row in part]
                    table = {
                        schema.IMAGE: images(column(flat, dtype, normalization), number),
                        schema.LABEL: labels,
                        "emotion": [CLASSES[label] for label in labels],
                        **{name: [row[name] for row in origins] for name in schema.ORIGIN},
                    }
                    if soft:
                        table[schema.VOTES] = list(rows.votes[part])
                    writer.write_table(pa.table(table, schema=columns))
                    start, number = part.stop, number + 1
            relative = str(path.relative_to(folder))
            files.append(
                DataFile(path=relative, split=split, rows=start - begin, bytes=path.stat().st_size)
            )
        assert start == len(rows.labels), "the layout is too small"
    counts = {
        split: {
            name: int((splits[split].labels == label).sum()) if split in splits else 0
            for label, name in enumerate(CLASSES)
        }
        for split in ("train", "validation", "test")
    }
    total = sum(file.rows for file in files)
    Manifest(
        created="2024-05-06T07:08:09+00:00",
        image=ImageInfo(size=size, dtype=dtype, normalization=normalization),
        labels=LabelInfo(votes="votes.csv", target="soft") if soft else LabelInfo(),
        classes=list(CLASSES),
        files=[claimed(file) for file in files],
        counts=counts,
        rows=RowCounts(read=total, kept=counts, dropped={}, quarantined={}, written=total),
        quarantine=[],
        sources=[],
        checksum=CHECKSUM,
        versions={},
        config={},
    ).write(folder)
    return folder


@pytest.fixture(scope="session")
def rows() -> Rowset:
    """The rows that most of the datasets hold: as many as the layout takes."""
    return faces(ROWS, seed=1)


@pytest.fixture(scope="session")
def write_dataset() -> Callable[..., Path]:
    """Writes a dataset, see `write`."""
    return write


@pytest.fixture(scope="session")
def bright_and_dark() -> Callable[[int, int], Rowset]:
    """Makes rows that are easy to learn: a class is as bright as its label."""

    def make(rows: int, seed: int) -> Rowset:
        drawn = faces(rows, seed)
        level = 30 + 85 * drawn.labels[:, None, None].astype(np.int64)
        return Rowset((level + drawn.pixels // 10).astype(np.uint8), drawn.labels)

    return make


@pytest.fixture(scope="session")
def easy_dataset(
    bright_and_dark: Callable[[int, int], Rowset],
    write_dataset: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A dataset that is easy to learn, with validation and test splits."""
    sizes = {"train": 115, "validation": 40, "test": 20}
    splits = {name: bright_and_dark(n, 10 + n) for name, n in sizes.items()}
    return write_dataset(tmp_path_factory.mktemp("easy"), splits)


@pytest.fixture(scope="module")
def measured() -> Iterator[dict[str, float]]:
    """The forms' speeds, images a second; tests/train/test_speed.py measures them in truth."""
    found = {"keras": 100.0, "saved_model": 125.0, "litert": 150.0, "litert_int8": 300.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(speed, "measure", lambda files, *_: {name: found[name] for name in files})
        yield found
