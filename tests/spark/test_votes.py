"""Votes on the records of a CSV file, against the same rules in pandas."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.manifest import LabelInfo
from fer_pipeline.data.outcomes import DropReason, QuarantineReason
from fer_pipeline.errors import FerError, InputError, StorageError
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.preprocessed import Prepare, PreprocessedDataset

EMOTIONS = ("neutral", "happiness", "surprise", "sadness", "anger", "disgust", "fear", "contempt")
COLUMNS = (*EMOTIONS, "unknown", "NF")
# In another order than FER2013's, not all of its emotions, and one that it does not have.
CLASSES = {"sad": "sadness", "happy": "happiness", "contempt": "contempt", "fear": "fear"}
ROWS = 420
BAD = {40: "9,1 2 3,Training", 200: "nothing", 410: "3,,Training"}
USAGES = ("Training", "Training", "Training", "PublicTest", "PrivateTest")
SPLIT = {"usage_to_split": {"PrivateTest": None}}
ALLOWED = {"max_quarantined_fraction": 0.1}


@pytest.fixture(scope="module")
def ballots() -> pd.DataFrame:
    """Votes with clear majorities, with ties, for no face, and without any usable vote."""
    random = np.random.default_rng(3)
    counts = random.integers(0, 4, (ROWS, len(COLUMNS)))
    counts[random.random(counts.shape) < 0.6] = 0
    votes = pd.DataFrame(counts, columns=COLUMNS)
    votes.insert(0, "Image name", [f"fer{n:07d}.png" if n % 50 else "" for n in range(ROWS)])
    votes.insert(0, "Usage", [USAGES[n % len(USAGES)] for n in range(ROWS)])
    return votes


@pytest.fixture(scope="module")
def records(ballots) -> pd.DataFrame:
    """The code, image number and usage of each record; every sixth is a copy of an earlier one."""
    random = np.random.default_rng(4)
    image = np.arange(ROWS)
    copies = image[60::6]
    image[copies] = random.integers(0, 60, len(copies))
    return pd.DataFrame(
        {"code": random.integers(0, 7, ROWS), "image": image, "usage": ballots["Usage"]}
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory, records) -> Path:
    path = tmp_path_factory.mktemp("voted") / "faces.csv"
    rows = [
        format_row(code, make_image(image, 48), usage) for code, image, usage in records.to_numpy()
    ]
    lines = [BAD.get(number, row) for number, row in enumerate(rows)]
    # Blank lines do not count as records.
    path.write_text("\n".join(["emotion,pixels,Usage", "", *lines[:90], " ", *lines[90:], ""]))
    return path


@pytest.fixture(scope="module")
def votes(tmp_path_factory, ballots) -> Path:
    path = tmp_path_factory.mktemp("votes") / "cast.csv"
    ballots.to_csv(path, index=False)
    return path


@pytest.fixture(scope="module")
def prepare_voted(prepare, source, votes) -> Callable[..., PreprocessedDataset]:
    """A function that preprocesses the source with its votes."""

    def run(target: str, **settings: object) -> PreprocessedDataset:
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
def majority(prepare_voted):
    return prepare_voted("hard")


@pytest.fixture(scope="module")
def distribution(prepare_voted):
    return prepare_voted("soft", variants={"flip": True}, sampling={"oversample": {"fear": 2}})


def label_records(records: pd.DataFrame, ballots: pd.DataFrame) -> pd.DataFrame:
    """Return the class of each record or the cause of its drop, by the documented rules."""
    table = records.copy()
    numbers = ballots[list(COLUMNS)]
    table["cause"] = None
    class_votes = numbers[list(CLASSES.values())].set_axis(list(CLASSES), axis=1)
    most = class_votes.max(axis=1)
    tied = class_votes.eq(most, axis=0)
    named = [FER2013[code] for code in table["code"]]
    backed = [name in CLASSES and tied.loc[row, name] for row, name in enumerate(named)]
    table["label"] = class_votes.idxmax(axis=1).where(tied.sum(axis=1) == 1, named)
    table.loc[(tied.sum(axis=1) > 1) & ~np.array(backed), "cause"] = DropReason.TIE
    table.loc[most == 0, "cause"] = DropReason.NO_VOTES
    no_face = numbers["NF"] > numbers.drop(columns="NF").max(axis=1)
    table.loc[no_face, "cause"] = DropReason.VOTED_NO_FACE
    table.loc[table["usage"] == "PrivateTest", "cause"] = DropReason.USAGE
    table.loc[list(BAD), "cause"] = QuarantineReason.BROKEN
    train = (table["usage"] == "Training") & table["cause"].isna()
    evaluated = (table["usage"] == "PublicTest") & table["cause"].isna()
    evaluated |= table["cause"] == DropReason.USAGE
    for _, copies in table[train].groupby("image"):
        if table.loc[evaluated, "image"].isin(copies["image"]).any():
            table.loc[copies.index, "cause"] = DropReason.COPY_OF_EVALUATION
        elif copies["label"].nunique() > 1:
            table.loc[copies.index, "cause"] = DropReason.CONFLICT
        else:
            table.loc[copies.index[1:], "cause"] = DropReason.COPY
    parts = class_votes.div(class_votes.sum(axis=1), axis=0).astype(np.float32)
    return table.assign(parts=parts.to_numpy().tolist())


def test_labels_agree_with_the_rules_in_pandas(majority, records, ballots) -> None:
    expected = label_records(records, ballots)
    labelled = expected[expected["cause"].isna()]
    dropped = Counter(expected["cause"].dropna())
    # Every rule must apply to some record.
    assert {
        DropReason.VOTED_NO_FACE,
        DropReason.NO_VOTES,
        DropReason.TIE,
        DropReason.CONFLICT,
        DropReason.COPY,
    } < set(dropped)
    assert set(labelled["label"]) == set(CLASSES)

    assert [(row["record"], row["emotion"], row["split"]) for row in majority.rows] == [
        (record, row.label, "train" if row.usage == "Training" else "validation")
        for record, row in labelled.iterrows()
    ]
    assert [list(CLASSES)[row["label"]] for row in majority.rows] == labelled["label"].tolist()
    row_counts = majority.manifest.rows
    assert row_counts.dropped == {cause: dropped[cause] for cause in DropReason}
    assert sum(row_counts.quarantined.values()) == len(BAD)
    assert row_counts.read == ROWS
    assert majority.manifest.labels == LabelInfo(votes="cast.csv", target="hard")


def test_each_row_of_a_soft_target_has_a_distribution(
    distribution, majority, records, ballots
) -> None:
    parts = label_records(records, ballots)["parts"]

    assert [row["votes"] for row in distribution.rows] == [
        parts[row["record"]] for row in distribution.rows
    ]
    times = [
        1 if row["split"] != "train" else 4 if row["emotion"] == "fear" else 2
        for row in majority.rows
    ]
    assert len(distribution.rows) == sum(times) > len(majority.rows)
    originals = [
        {key: cell for key, cell in row.items() if key != "votes"}
        for row in distribution.rows
        if (row["variant"], row["replica"]) == ("original", 0)
    ]
    assert originals == majority.rows
    assert distribution.manifest.rows.dropped == majority.manifest.rows.dropped
    assert distribution.manifest.labels == LabelInfo(votes="cast.csv", target="soft")
    assert distribution.manifest.labels.has_soft_labels


def test_only_a_soft_target_has_a_column_of_votes(distribution, majority) -> None:
    for dataset, has_votes in ((distribution, True), (majority, False)):
        for file in dataset.manifest.files:
            stored = pq.ParquetFile(dataset.folder / file.path).schema_arrow
            assert ("votes" in stored.names) == has_votes
            if has_votes:
                assert stored.field("votes").type == pa.list_(pa.float32())


@pytest.mark.usefixtures("small_blocks")
def test_blocks_and_partitions_change_nothing(spark, prepare_voted, source, distribution) -> None:
    assert spark.read.text(str(source)).rdd.getNumPartitions() >= 10

    repeated = prepare_voted(
        "soft",
        variants={"flip": True},
        sampling={"oversample": {"fear": 2}},
        output={"files_per_split": 5},
    )

    assert repeated.rows == distribution.rows
    assert repeated.manifest.checksum == distribution.manifest.checksum


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
        dataset = prepare(file, labels={"votes": str(path), "target": target})
        checksums[name] = dataset.manifest.checksum

    assert checksums["two"] == checksums["the same parts"]
    assert checksums["two of majority"] == checksums["three of majority"]
    assert len(set(checksums.values())) == 3


# --- Votes that do not fit the input.


def expect_refusal(
    prepare: Prepare,
    *inputs: Path,
    votes: Path,
    error: type[FerError] = InputError,
    **config: Any,
) -> str:
    """Check that the votes are refused, and return the message."""
    with pytest.raises(error) as raised:
        prepare(*inputs, labels={"votes": str(votes)}, input=ALLOWED, **config)
    return str(raised.value)


def test_another_number_of_records_is_refused(prepare, source, ballots, tmp_path) -> None:
    path = tmp_path / "short.csv"
    ballots[:-1].to_csv(path, index=False)
    message = expect_refusal(prepare, source, votes=path)
    assert message.startswith(f"{path}: ")
    assert f"votes on {ROWS - 1} records, but the input has {ROWS}" in message


def test_the_error_for_other_usages_names_the_record(prepare, source, ballots, tmp_path) -> None:
    path = tmp_path / "moved.csv"
    ballots.assign(Usage=ballots["Usage"].where(ballots.index != 301, "PublicTest")).to_csv(
        path, index=False
    )
    message = expect_refusal(prepare, source, votes=path)
    assert message.startswith(f"{path}: record 301 has the usage 'publictest'")
    assert f"in {source} it has 'training'" in message
    # Even if the split does not depend on the usage.
    assert expect_refusal(prepare, source, votes=path, split={"method": "stratified"}) == message


def test_several_files_are_refused(prepare, source, votes) -> None:
    (source.parent / "two").mkdir()
    for name in ("a.csv", "b.csv"):
        (source.parent / "two" / name).write_bytes(source.read_bytes())
    message = expect_refusal(prepare, source.parent / "two", votes=votes)
    assert message.startswith(f"{votes}: ")
    assert "labels.votes" in message
    assert "but the input is 2 CSV files" in message


def test_images_are_refused(prepare, votes, tmp_path) -> None:
    (tmp_path / "happy").mkdir()
    (tmp_path / "happy" / "a.png").write_bytes(b"")
    assert "but the input is 1 images" in expect_refusal(prepare, tmp_path, votes=votes)


def test_unreadable_votes_are_refused_before_anything_is_written(prepare, source, tmp_path) -> None:
    folder = tmp_path / "out"
    message = expect_refusal(
        prepare, source, votes=tmp_path / "no.csv", error=StorageError, to=folder
    )
    assert message == f"{tmp_path / 'no.csv'}: no such file"
    assert "unknown column" in expect_refusal(
        prepare, source, votes=write_votes(tmp_path, "a,b\n"), to=folder
    )
    assert not folder.exists()


def write_votes(folder: Path, text: str) -> Path:
    """Write a file of votes that is not valid, and return its path."""
    (folder / "bad.csv").write_text(text)
    return folder / "bad.csv"
