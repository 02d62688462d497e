"""Small datasets in the format of preprocess, written without Spark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from fer_pipeline.data import arrow, schema, synthetic
from fer_pipeline.data.manifest import DataFile, ImageInfo, LabelInfo, Manifest, RowCounts
from fer_pipeline.data.normalization import Normalization

SIZE = 16
CLASSES = ("angry", "happy", "sad")
CHECKSUM = "fedcba9876543210"
# Rows of each row group, file by file. All files differ, and their last groups are smaller.
LAYOUT = ((16, 16, 7), (16, 16, 16, 3), (16, 9))
ROWS = sum(map(sum, LAYOUT))


@dataclass(frozen=True)
class Rowset:
    """The rows of one split, in stored order."""

    pixels: npt.NDArray[np.uint8]  # (n, size, size)
    labels: npt.NDArray[np.int32]
    votes: npt.NDArray[np.float32] | None = None  # (n, classes); None: no column of votes

    def origin(self, row: int) -> dict[str, Any]:
        """Return the origin columns of a row; they do not follow from its position."""
        return {
            "source": f"file:///faces/{row % 3}.csv",
            "record": 2**33 + 1000 - 7 * row,
            "image_hash": f"{row * 2654435761:032x}",
            "variant": ("original", "flip")[row % 2],
            "replica": row % 4,
        }


def make_faces(rows: int, seed: int, size: int = SIZE) -> Rowset:
    """Return synthetic faces, all different; the first one contains all 256 pixel values."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(len(CLASSES), size=rows).astype(np.int32)
    pixels = np.stack([synthetic.draw_face(int(label), rng, size) for label in labels])
    ramp = (np.arange(size * size) % 256).astype(np.uint8)
    pixels[0] = rng.permutation(ramp).reshape(size, size)
    assert len({face.tobytes() for face in pixels}) == rows
    return Rowset(pixels, labels)


def encode_pixels(
    flat: npt.NDArray[np.uint8], dtype: str, normalization: Normalization
) -> pa.Array:
    """Return flat pixels, (n, size * size), as the dataset's column."""
    if dtype == "uint8":
        return arrow.build_binary_column(flat)
    ends = pa.array(np.arange(len(flat) + 1, dtype=np.int32) * flat.shape[1])
    return pa.ListArray.from_arrays(ends, pa.array(normalization.lookup_table()[flat].ravel()))


def write_dataset(
    folder: Path,
    splits: Mapping[str, Rowset],
    *,
    dtype: str = "uint8",
    normalization: Normalization | None = None,
    layout: Sequence[Sequence[int]] = LAYOUT,
    size: int = SIZE,
    change_pixels: Callable[[pa.Array, int], pa.Array] = lambda pixels, group: pixels,
    change_file: Callable[[DataFile], DataFile] = lambda file: file,
) -> Path:
    """Write a dataset.

    Args:
        folder: The dataset's folder.
        splits: The rows of each split.
        dtype: Data type of the stored pixels.
        normalization: Normalisation in the manifest; centered by default.
        layout: Rows of each row group, file by file; files without rows are not written.
        size: Side of the images in the manifest.
        change_pixels: Called with the stored pixels of a row group and its index; returns the
            pixels to write instead.
        change_file: Called with a file's entry in the manifest; returns the entry to write instead.
    """
    normalization = normalization or Normalization.centered()
    soft = any(rows.votes is not None for rows in splits.values())
    columns = arrow.build_arrow_schema(schema.dataset_columns(dtype, votes=soft))
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
                        schema.IMAGE: change_pixels(
                            encode_pixels(flat, dtype, normalization), number
                        ),
                        schema.LABEL: labels,
                        "emotion": [CLASSES[label] for label in labels],
                        **{name: [row[name] for row in origins] for name in schema.ORIGIN},
                    }
                    if rows.votes is not None:
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
        files=[change_file(file) for file in files],
        counts=counts,
        rows=RowCounts(read=total, kept=counts, dropped={}, quarantined={}, written=total),
        quarantine=[],
        sources=[],
        checksum=CHECKSUM,
        versions={},
        config={},
    ).write(folder)
    return folder


def make_easy_rows(rows: int, seed: int) -> Rowset:
    """Return rows that are easy to learn: the brightness of a face depends on its label."""
    faces = make_faces(rows, seed)
    level = 30 + 85 * faces.labels[:, None, None].astype(np.int64)
    return Rowset((level + faces.pixels // 10).astype(np.uint8), faces.labels)
