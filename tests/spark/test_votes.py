"""Votes on the records of a CSV file, against the same rules in pandas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.manifest import LabelInfo
from fer_pipeline.data.outcomes import DropReason, QuarantineReason
from fer_pipeline.errors import InputError, StorageError
from tests.helpers.fer_csv import format_row, make_image, write_csv

NAMES = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
COLUMNS = (*NAMES, "unknown", "NF")
# Not FER2013's order, not all of its emotions, and one that it does not have.
CLASSES = {"sad": "sadness", "happy": "happiness", "contempt": "contempt", "fear": "fear"}
ROWS = 420
BAD = {40: "9,1 2 3,Training", 200: "nothing", 410: "3,,Training"}
USAGES = ("Training", "Training", "Training", "PublicTest", "PrivateTest")
SPLIT = {"usage_to_split": {"PrivateTest": None}}
ALLOWED = {"max_quarantined_fraction": 0.1}


@pytest.fixture(scope="module")
def ballots() -> pd.DataFrame:
    """Votes of all kinds: clear ones, ties, no face, and none that are of use."""
    random = np.random.default_rng(3)
    few = random.integers(0, 4, (ROWS, len(COLUMNS)))
    few[random.random(few.shape) < 0.6] = 0
    votes = pd.DataFrame(few, columns=COLUMNS)
    votes.insert(0, "Image name", [f"fer{n:07d}.png" if n % 50 else "" for n in range(ROWS)])
    votes.insert(0, "Usage", [USAGES[n % len(USAGES)] for n in range(ROWS)])
    return votes


@pytest.fixture(scope="module")
def shown(ballots) -> pd.DataFrame:
    """The records: code, number of the image and usage. Every sixth is a copy of an earlier one."""
    random = np.random.default_rng(4)
    image = np.arange(ROWS)
    copies = image[60::6]
    image[copies] = random.integers(0, 60, len(copies))
    return pd.DataFrame(
        {"code": random.integers(0, 7, ROWS), "image": image, "usage": ballots["Usage"]}
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory, shown) -> Path:
    path = tmp_path_factory.mktemp("voted") / "faces.csv"
    rows = [
        format_row(code, make_image(image, 48), usage) for code, image, usage in shown.to_numpy()
    ]
    lines = [BAD.get(number, row) for number, row in enumerate(rows)]
    # Blank lines are no records.
    path.write_text("\n".join(["emotion,pixels,Usage", "", *lines[:90], " ", *lines[90:], ""]))
    return path


@pytest.fixture(scope="module")
def votes(tmp_path_factory, ballots) -> Path:
    path = tmp_path_factory.mktemp("votes") / "cast.csv"
    ballots.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def made(prepare, source, votes) -> Callable[..., object]:
    """Prepares the source with its votes."""

    def run(target: str, **settings: object) -> object:
        settings = {
            "labels": {"votes": str(votes), "target": target},
            "classes": list(CLASSES),
            "split": SPLIT,
            "input": ALLOWED,
            **settings,
        }
        return prepare(source, **settings)

    return run


@pytest.fixture(scope="module")
def majority(made):
    return made("hard")


@pytest.fixture(scope="module")
def distribution(made):
    return made("soft", variants={"flip": True}, sampling={"oversample": {"fear": 2}})


@pytest.fixture
def small_blocks(spark) -> Iterator[None]:
    """Blocks of 150 kB, whatever the size of a file."""
    key = "spark.sql.files.maxPartitionBytes"
    before = spark.conf.get(key)
    spark.conf.set(key, "150000")
    yield
    spark.conf.set(key, before)


def judged(shown: pd.DataFrame, ballots: pd.DataFrame) -> pd.DataFrame:
    """For each record its class or why it has none, by the rules as they are written."""
    table = shown.copy()
    numbers = ballots[list(COLUMNS)]
    table["why"] = None
    chosen = numbers[list(CLASSES.values())].set_axis(list(CLASSES), axis=1)
    most = chosen.max(axis=1)
    tied = chosen.eq(most, axis=0)
    named = [FER2013[code] for code in table["code"]]
    backed = [name in CLASSES and tied.loc[row, name] for row, name in enumerate(named)]
    table["label"] = chosen.idxmax(axis=1).where(tied.sum(axis=1) == 1, named)
    table.loc[(tied.sum(axis=1) > 1) & ~np.array(backed), "why"] = DropReason.TIE
    table.loc[most == 0, "why"] = DropReason.NO_VOTES
    no_face = numbers["NF"] > numbers.drop(columns="NF").max(axis=1)
    table.loc[no_face, "why"] = DropReason.NO_FACE
    table.loc[table["usage"] == "PrivateTest", "why"] = DropReason.USAGE
    table.loc[list(BAD), "why"] = QuarantineReason.BROKEN
    train = (table["usage"] == "Training") & table["why"].isna()
    kept_back = (table["usage"] == "PublicTest") & table["why"].isna()
    kept_back |= table["why"] == DropReason.USAGE
    for _, copies in table[train].groupby("image"):
        if table.loc[kept_back, "image"].isin(copies["image"]).any():
            table.loc[copies.index, "why"] = DropReason.COPY_OF_EVALUATION
        elif copies["label"].nunique() > 1:
            table.loc[copies.index, "why"] = DropReason.CONFLICT
        else:
            table.loc[copies.index[1:], "why"] = DropReason.COPY
    parts = chosen.div(chosen.sum(axis=1), axis=0).astype(np.float32)
    return table.assign(parts=parts.to_numpy().tolist())


def test_every_record_has_the_label_that_pandas_gives_it(majority, shown, ballots) -> None:
    expected = judged(shown, ballots)
    kept = expected[expected["why"].isna()]
    dropped = Counter(expected["why"].dropna())
    # The file is no test of rules that do not occur.
    assert {
        DropReason.NO_FACE,
        DropReason.NO_VOTES,
        DropReason.TIE,
        DropReason.CONFLICT,
        DropReason.COPY,
    } < set(dropped)
    assert set(kept["label"]) == set(CLASSES)

    assert [(row["record"], row["emotion"], row["split"]) for row in majority.rows] == [
        (record, row.label, "train" if row.usage == "Training" else "validation")
        for record, row in kept.iterrows()
    ]
    assert [list(CLASSES)[row["label"]] for row in majority.rows] == kept["label"].tolist()
    books = majority.manifest.rows
    assert books.dropped == {cause: dropped[cause] for cause in DropReason}
    assert sum(books.quarantined.values()) == len(BAD)
    assert books.read == ROWS
    assert majority.manifest.labels == LabelInfo(votes="cast.csv", target="hard")


def test_a_distribution_stands_beside_each_label(distribution, majority, shown, ballots) -> None:
    parts = judged(shown, ballots)["parts"]

    assert [row["votes"] for row in distribution.rows] == [
        parts[row["record"]] for row in distribution.rows
    ]
    times = [
        1 if row["split"] != "train" else 4 if row["emotion"] == "fear" else 2
        for row in majority.rows
    ]
    assert len(distribution.rows) == sum(times) > len(majority.rows)
    originals = [
        {key: value for key, value in row.items() if key != "votes"}
        for row in distribution.rows
        if (row["variant"], row["replica"]) == ("original", 0)
    ]
    assert originals == majority.rows
    assert distribution.manifest.rows.dropped == majority.manifest.rows.dropped
    assert distribution.manifest.labels == LabelInfo(votes="cast.csv", target="soft")
    assert distribution.manifest.labels.has_soft_labels


def test_only_a_distribution_has_a_column(distribution, majority) -> None:
    for made, there in ((distribution, True), (majority, False)):
        for file in made.manifest.files:
            found = pq.ParquetFile(made.folder / file.path).schema_arrow
            assert ("votes" in found.names) == there
            if there:
                assert found.field("votes").type == pa.list_(pa.float32())


@pytest.mark.usefixtures("small_blocks")
def test_blocks_and_partitions_change_nothing(spark, made, source, distribution) -> None:
    assert spark.read.text(str(source)).rdd.getNumPartitions() >= 10

    again = made(
        "soft",
        variants={"flip": True},
        sampling={"oversample": {"fear": 2}},
        output={"files_per_split": 5},
    )

    assert again.rows == distribution.rows
    assert again.manifest.checksum == distribution.manifest.checksum


def test_the_distribution_is_part_of_the_checksum(prepare, tmp_path, ballots) -> None:
    file = write_csv(tmp_path / "a.csv", [format_row(n % 7, make_image(n)) for n in range(20)])
    votes = ballots[:20].assign(Usage="", **dict.fromkeys(COLUMNS, 0))
    votes["happiness"], votes["sadness"] = 5, 2
    checksums = {}
    for name, target, happiness, sadness in (
        ("two", "soft", 5, 2),
        ("the same parts", "soft", 10, 4),
        ("three", "soft", 5, 3),
        ("two of majority", "hard", 5, 2),
        ("three of majority", "hard", 5, 3),
    ):
        votes.loc[7, ["happiness", "sadness"]] = happiness, sadness
        path = tmp_path / f"{name}.csv"
        votes.to_csv(path, index=False)
        made = prepare(file, labels={"votes": str(path), "target": target})
        checksums[name] = made.manifest.checksum

    assert checksums["two"] == checksums["the same parts"]
    assert checksums["two of majority"] == checksums["three of majority"]
    assert len(set(checksums.values())) == 3


# --- Votes that are not those of the input.


def refused(prepare, *inputs: Path, votes: Path, error: type = InputError, **config: object) -> str:
    with pytest.raises(error) as raised:
        prepare(*inputs, labels={"votes": str(votes)}, input=ALLOWED, **config)
    return str(raised.value)


def test_another_number_of_records_is_refused(prepare, source, ballots, tmp_path) -> None:
    path = tmp_path / "short.csv"
    ballots[:-1].to_csv(path, index=False)
    assert refused(prepare, source, votes=path) == (
        f"{path}: holds votes on {ROWS - 1} records, but the input has {ROWS};"
        " both files must hold the same images in the same order"
    )


def test_other_usages_are_refused_by_their_record(prepare, source, ballots, tmp_path) -> None:
    path = tmp_path / "moved.csv"
    ballots.assign(Usage=ballots["Usage"].where(ballots.index != 301, "PublicTest")).to_csv(
        path, index=False
    )
    message = (
        f"{path}: record 301 has the usage 'publictest', in {source} it has 'training';"
        " both files must hold the same images in the same order"
    )
    assert refused(prepare, source, votes=path) == message
    # Nor where usage decides nothing.
    assert refused(prepare, source, votes=path, split={"method": "stratified"}) == message


def test_several_files_are_refused(prepare, source, votes) -> None:
    (source.parent / "two").mkdir()
    for name in ("a.csv", "b.csv"):
        (source.parent / "two" / name).write_bytes(source.read_bytes())
    assert refused(prepare, source.parent / "two", votes=votes) == (
        f"{votes}: these votes (labels.votes) go row by row with one CSV file, but the input is"
        " 2 CSV files; give the one that was voted on"
    )


def test_images_are_refused(prepare, votes, tmp_path) -> None:
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "a.png").write_bytes(b"")
    assert "but the input is 1 images" in refused(prepare, tmp_path, votes=votes)


def test_votes_that_are_none_are_refused_before_anything_is_written(
    prepare, source, tmp_path
) -> None:
    folder = tmp_path / "out"
    message = refused(prepare, source, votes=tmp_path / "no.csv", error=StorageError, to=folder)
    assert message == f"{tmp_path / 'no.csv'}: no such file"
    assert "unknown column" in refused(
        prepare, source, votes=_written(tmp_path, "a,b\n"), to=folder
    )
    assert not folder.exists()


def _written(folder: Path, text: str) -> Path:
    (folder / "bad.csv").write_text(text)
    return folder / "bad.csv"
