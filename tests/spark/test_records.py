"""Record numbers in files that several tasks read."""

from __future__ import annotations

import bz2
import gzip

import pytest

from fer_pipeline.data import synthetic
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.preprocessed import build_expected_row

ROWS = 520
BAD = {3: "0,1 2 3,Training", 200: "nothing", 519: "0,,Training"}
BLANK = {0, 1, 17, 100, 301, 302, 519}


@pytest.fixture(scope="module")
def text() -> bytes:
    """The content of a CSV of 4 MB: 48x48 images, blank lines and bad rows."""
    lines = ["emotion,pixels,Usage"]
    for record in range(ROWS):
        if record in BLANK:
            lines += ["", " \r"]
        lines.append(BAD.get(record) or format_row(record % 7, make_image(record, 48)))
    return "".join(f"{line}\n" for line in lines).encode()


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("name", "pack", "blocks"),
    [("a.csv", bytes, 20), ("a.csv.bz2", bz2.compress, 2), ("a.csv.gz", gzip.compress, 1)],
)
def test_records_are_numbered_over_all_blocks(
    spark, prepare, text, tmp_path, name, pack, blocks
) -> None:
    file = tmp_path / "name with a space" / name
    file.parent.mkdir()
    file.write_bytes(pack(text))
    assert spark.read.text(str(file)).rdd.getNumPartitions() >= blocks

    dataset = prepare(file.parent, image={"size": 48}, split={"deduplicate": False})

    assert dataset.rows == [
        build_expected_row(file, record, record % 7, make_image(record, 48))
        for record in range(ROWS)
        if record not in BAD
    ]
    assert [(row["record"], row["excerpt"]) for row in dataset.quarantine] == list(BAD.items())
    assert dataset.manifest.rows.read == ROWS
    assert [(source.path, source.records) for source in dataset.manifest.sources] == [
        (str(file), ROWS)
    ]


@pytest.mark.usefixtures("small_blocks")
def test_large_files_may_have_any_name(prepare, text, tmp_path) -> None:
    paths = [tmp_path / name for name in ("100%25 {ä}.csv", "fer2013 [1].csv")]
    for path in paths:
        path.write_bytes(text)

    dataset = prepare(tmp_path, image={"size": 48})

    assert sorted(source.path for source in dataset.manifest.sources) == [*map(str, paths)]
    assert dataset.manifest.rows.read == 2 * ROWS


@pytest.mark.usefixtures("small_blocks")
def test_the_header_applies_to_all_blocks_of_a_small_file(prepare, tmp_path) -> None:
    """The file is smaller than a megabyte, but larger than the blocks that a user may set."""
    file = write_csv(
        tmp_path / "a.csv", [format_row(record % 7, make_image(record, 48)) for record in range(60)]
    )

    dataset = prepare(file, image={"size": 48})

    assert dataset.rows == [
        build_expected_row(file, record, record % 7, make_image(record, 48)) for record in range(60)
    ]


def test_every_row_of_a_synthetic_csv_is_counted(prepare, tmp_path) -> None:
    """It has seven kinds of bad rows and three copies, and images of the demo's size."""
    file = tmp_path / "synthetic.csv"
    synthetic.write_csv(file, 210, seed=1, broken=7)

    dataset = prepare(file, image={"size": 28}, input={"max_quarantined_fraction": 0.1})

    rows = dataset.manifest.rows
    assert rows.read == 210
    assert {reason: n for reason, n in rows.quarantined.items() if n} == {
        "wrong number of pixels": 1,
        "value outside 0..255": 1,
        "not a number": 1,
        "unknown emotion": 1,
        "unknown usage": 1,
        "empty field": 1,
        "broken line": 1,
    }
    assert sum(rows.dropped.values()) + len(dataset.rows) == 203
    assert rows.dropped["copy of a test or validation image"] >= 1
