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
    """A file of 4 MB: blank lines and bad rows among 48x48 images."""
    lines = ["emotion,pixels,Usage"]
    for record in range(ROWS):
        if record in BLANK:
            lines += ["", " \r"]
        lines.append(BAD.get(record) or format_row(record % 7, make_image(record, 48)))
    return "".join(f"{text}\n" for text in lines).encode()


@pytest.fixture
def small_blocks(spark):
    """Blocks of 150 kB, whatever the size of a file."""
    key = "spark.sql.files.maxPartitionBytes"
    before = spark.conf.get(key)
    spark.conf.set(key, "150000")
    yield
    spark.conf.set(key, before)


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

    made = prepare(file.parent, image={"size": 48}, split={"deduplicate": False})

    assert made.rows == [
        build_expected_row(file, record, record % 7, make_image(record, 48))
        for record in range(ROWS)
        if record not in BAD
    ]
    assert [(row["record"], row["excerpt"]) for row in made.quarantine] == list(BAD.items())
    assert made.manifest.rows.read == ROWS
    assert [(source.path, source.records) for source in made.manifest.sources] == [
        (str(file), ROWS)
    ]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("name", ["fer2013 [1].csv", "100%25 {ä}.csv"])
def test_a_large_file_may_have_any_name(prepare, text, tmp_path, name) -> None:
    (tmp_path / name).write_bytes(text)

    made = prepare(tmp_path, image={"size": 48})

    assert [source.path for source in made.manifest.sources] == [str(tmp_path / name)]
    assert made.manifest.rows.read == ROWS


@pytest.mark.usefixtures("small_blocks")
def test_files_of_a_few_blocks_keep_their_headers(prepare, tmp_path) -> None:
    """Below a megabyte, but above the blocks that a user may have set."""
    file = write_csv(
        tmp_path / "a.csv", [format_row(record % 7, make_image(record, 48)) for record in range(60)]
    )

    made = prepare(file, image={"size": 48})

    assert made.rows == [
        build_expected_row(file, record, record % 7, make_image(record, 48)) for record in range(60)
    ]


def test_the_drawn_csv_is_accounted_for(prepare, tmp_path) -> None:
    """Its seven kinds of bad rows and its three copies, at the size of the demo's images."""
    file = tmp_path / "drawn.csv"
    synthetic.write_csv(file, 210, seed=1, broken=7)

    made = prepare(file, image={"size": 28}, input={"max_quarantined_fraction": 0.1})

    rows = made.manifest.rows
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
    assert sum(rows.dropped.values()) + len(made.rows) == 203
    assert rows.dropped["copy of a test or validation image"] >= 1
