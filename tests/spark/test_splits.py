"""Assignment of images to splits, and dropped copies."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fer_pipeline.data.outcomes import DropReason
from fer_pipeline.errors import DatasetError
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.preprocessed import PreprocessedDataset, build_expected_row

SIZES = (60, 5, 44, 71, 33, 28, 59)
STRATIFIED = {"method": "stratified", "validation": 0.1, "test": 0.15}
CONFIG = {
    "split": STRATIFIED,
    "sampling": {"oversample": {"disgust": 4, "fear": 1.5}},
    "variants": {"flip": True},
    "input": {"max_quarantined_fraction": 0.1},
}


@pytest.fixture(scope="module")
def lines() -> list[str]:
    """Images of all classes in order; then copies of four, two of them under another label."""
    labels = np.repeat(range(7), SIZES).tolist()
    rows = [format_row(label, make_image(number)) for number, label in enumerate(labels)]
    rows += [
        rows[0],
        rows[0],
        rows[100],
        format_row(6, make_image(70)),
        format_row(0, make_image(299)),
    ]
    return [*rows, "broken", "8,1 2,Training"]


@pytest.fixture(scope="module")
def base(tmp_path_factory, prepare, lines):
    """The dataset of the lines in their own order, which other orders must reproduce."""
    path = tmp_path_factory.mktemp("base") / "a.csv"
    write_lines(path, lines)
    return prepare(path, **CONFIG)


def write_lines(path: Path, lines: Sequence[str]) -> None:
    """Write a CSV from its lines without the header."""
    path.write_text("\n".join(["emotion,pixels,Usage", *lines]))


def count_contents(dataset: PreprocessedDataset) -> Counter[tuple[Any, ...]]:
    """Count the rows of a dataset, without their places in the input."""
    return Counter(
        tuple(cell for key, cell in sorted(row.items()) if key not in ("source", "record"))
        for row in dataset.rows
    )


def test_the_shares_of_each_class_are_rounded_to_whole_images(base) -> None:
    kept_counts = base.manifest.rows.kept
    class_counts = np.array(
        [sum(kept_counts[s][name] for s in kept_counts) for name in base.manifest.classes]
    )
    # Image 70 is fear's and image 299 neutral's: both are dropped with their copies.
    expected_counts = np.array(SIZES) - (np.arange(7) == 2) - (np.arange(7) == 6)
    assert class_counts.tolist() == expected_counts.tolist()
    for name, count in zip(base.manifest.classes, expected_counts.tolist(), strict=True):
        assert abs(kept_counts["validation"][name] - 0.1 * count) <= 0.5
        assert abs(kept_counts["test"][name] - 0.15 * count) <= 0.5
    assert base.manifest.rows.dropped == {
        **dict.fromkeys(DropReason, 0),
        DropReason.CONFLICT: 4,
        DropReason.COPY: 3,
    }


def test_no_image_is_in_two_splits(base) -> None:
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for row in base.rows:
        splits[row["image_hash"]].add(row["split"])

    assert all(len(image_splits) == 1 for image_splits in splits.values())
    assert len(splits) == sum(SIZES) - 2


@pytest.mark.parametrize("partitions", [1, 5])
def test_partitions_and_the_order_of_rows_change_nothing(
    prepare, lines, base, tmp_path, partitions
) -> None:
    write_lines(tmp_path / "a.csv", np.random.default_rng(partitions).permutation(lines).tolist())

    dataset = prepare(tmp_path / "a.csv", output={"files_per_split": partitions}, **CONFIG)

    assert dataset.manifest.checksum == base.manifest.checksum
    assert count_contents(dataset) == count_contents(base)
    assert dataset.manifest.sources[0].fingerprint == base.manifest.sources[0].fingerprint


def test_the_number_of_files_changes_nothing(prepare, lines, base, tmp_path) -> None:
    for part in range(3):
        write_lines(tmp_path / f"{part}.csv", lines[part::3])

    dataset = prepare(tmp_path, output={"files_per_split": 3}, **CONFIG)

    assert dataset.manifest.checksum == base.manifest.checksum
    assert count_contents(dataset) == count_contents(base)


def test_another_seed_gives_other_splits(prepare, lines, base, tmp_path) -> None:
    write_lines(tmp_path / "a.csv", lines)

    dataset = prepare(tmp_path / "a.csv", seed=1, **CONFIG)

    def list_test_images(dataset: PreprocessedDataset) -> set[str]:
        return {row["image_hash"] for row in dataset.rows if row["split"] == "test"}

    assert dataset.manifest.rows == base.manifest.rows
    assert dataset.manifest.checksum != base.manifest.checksum
    # Two independent samples of 15 % share 2 % of all images.
    common = list_test_images(dataset) & list_test_images(base)
    assert len(common) < len(list_test_images(base)) / 2


def test_usage_to_split_assigns_usages_to_splits(prepare, tmp_path) -> None:
    usages = ["Training", "publictest", "PrivateTest", " TRAIN ", "val", "Holdout", "extra"]
    file = write_csv(
        tmp_path / "a.csv", [format_row(n, make_image(n), usage) for n, usage in enumerate(usages)]
    )

    dataset = prepare(
        file,
        split={
            "usage_to_split": {"PublicTest": "test", "PrivateTest": None, "Extra": "validation"}
        },
        input={"max_quarantined_fraction": 0.2},
    )

    splits = {0: "train", 1: "test", 3: "train", 4: "validation", 6: "validation"}
    assert dataset.rows == [
        build_expected_row(file, n, n, make_image(n), split) for n, split in splits.items()
    ]
    assert dataset.manifest.rows.dropped["usage not selected"] == 1
    assert [(row["record"], row["detail"]) for row in dataset.quarantine] == [
        (5, "usage 'Holdout'")
    ]


def test_validation_is_sampled_from_training_only(prepare, tmp_path) -> None:
    """The split of the shared data: PublicTest is test, validation a part of Training."""
    rows = [format_row(n % 2, make_image(n)) for n in range(40)]
    rows += [format_row(n % 2, make_image(n), "PublicTest") for n in range(36, 50)]
    rows += [format_row(n % 2, make_image(n), "PrivateTest") for n in range(50, 60)]
    file = write_csv(tmp_path / "a.csv", rows)
    usage = {"Training": "train", "PublicTest": "test", "PrivateTest": None}

    dataset = prepare(file, split={"usage_to_split": usage, "validation": 0.25})

    split_of_record = {row["record"]: row["split"] for row in dataset.rows}
    assert {record for record, split in split_of_record.items() if split == "test"} == set(
        range(40, 54)
    )
    # Four of the forty are copies of test images; of 18 of a class, 4.5 are 5.
    for label in range(2):
        label_splits = [split_of_record[n] for n in range(label, 36, 2)]
        assert Counter(label_splits) == {"train": 13, "validation": 5}
    assert dataset.manifest.rows.dropped[DropReason.COPY_OF_EVALUATION] == 4
    assert dataset.manifest.rows.dropped[DropReason.USAGE] == 10


# An image, its label and usage; and the cause of its drop, or its split.
COPIES = [
    ("A", 0, "PrivateTest", "test"),
    ("A", 0, "Training", DropReason.COPY_OF_EVALUATION),
    ("B", 0, "Training", DropReason.CONFLICT),
    ("B", 1, "Training", DropReason.CONFLICT),
    ("C", 2, "Training", "train"),
    ("C", 2, "Training", DropReason.COPY),
    ("C", 2, "Training", DropReason.COPY),
    # All three would apply: the first of them is the cause.
    ("D", 0, "Training", DropReason.COPY_OF_EVALUATION),
    ("D", 1, "Training", DropReason.COPY_OF_EVALUATION),
    ("D", 1, "Training", DropReason.COPY_OF_EVALUATION),
    ("D", 3, "PublicTest", "validation"),
    ("E", 0, "Training", DropReason.CONFLICT),
    ("E", 0, "Training", DropReason.CONFLICT),
    ("E", 1, "Training", DropReason.CONFLICT),
    # Evaluation keeps its own copies.
    ("F", 4, "PublicTest", "validation"),
    ("F", 4, "PublicTest", "validation"),
    # A row of another class decides nothing; one of another usage counts as evaluation.
    ("G", 0, "Training", "train"),
    ("G", 6, "Training", DropReason.CLASS),
    ("H", 1, "Training", DropReason.COPY_OF_EVALUATION),
    ("H", 0, "Unused", DropReason.USAGE),
    ("I", 6, "Unused", DropReason.CLASS),
    ("J", 3, "Training", "train"),
    ("J", 6, "PrivateTest", DropReason.CLASS),
]
CLASSES = ("angry", "disgust", "fear", "happy", "sad")
RULES: dict[str, Any] = {"classes": CLASSES, "split": {"usage_to_split": {"Unused": None}}}


@pytest.fixture
def copies(tmp_path):
    """The CSV file of COPIES, and its images."""
    images = [make_image(ord(name)) for name, *_ in COPIES]
    rows = [
        format_row(label, image, usage)
        for image, (_, label, usage, _) in zip(images, COPIES, strict=True)
    ]
    return write_csv(tmp_path / "a.csv", rows), images


def test_copies_are_dropped_for_the_first_cause_that_applies(prepare, copies) -> None:
    file, images = copies

    dataset = prepare(file, **RULES)

    assert dataset.rows == [
        build_expected_row(file, record, label, images[record], outcome)
        for record, (_, label, _, outcome) in enumerate(COPIES)
        if not isinstance(outcome, DropReason)
    ]
    causes = Counter(outcome for *_, outcome in COPIES)
    assert dataset.manifest.rows.dropped == {cause: causes[cause] for cause in DropReason}


def test_without_deduplication_all_copies_stay(prepare, copies, caplog) -> None:
    file, images = copies
    split = {"deduplicate": False, **RULES["split"]}

    with caplog.at_level("INFO"):
        dataset = prepare(file, classes=CLASSES, split=split)

    assert "split.deduplicate is false: copies of images of other splits stay in" in caplog.text

    usages = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
    assert dataset.rows == [
        build_expected_row(file, record, label, images[record], usages[usage])
        for record, (_, label, usage, outcome) in enumerate(COPIES)
        if outcome not in (DropReason.CLASS, DropReason.USAGE)
    ]
    assert sum(dataset.manifest.rows.dropped.values()) == 4


def test_without_deduplication_all_copies_of_an_image_share_a_split(prepare, tmp_path) -> None:
    numbers = [n for n in range(40) for _ in range(1 + (n % 4 == 0) * 2)]
    rows = [format_row(n % 2, make_image(n)) for n in numbers]
    conflict = [format_row(0, make_image(99)), format_row(1, make_image(99))]
    file = write_csv(tmp_path / "a.csv", rows + conflict)

    dataset = prepare(file, split={**STRATIFIED, "validation": 0.3, "deduplicate": False})

    assert len(dataset.rows) == len(rows) + 2
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for row in dataset.rows:
        splits[row["image_hash"]].add(row["split"])
    assert all(len(image_splits) == 1 for image_splits in splits.values())
    # Copies under two labels belong to no class, so they are in no sample.
    assert [row["split"] for row in dataset.rows[-2:]] == ["train", "train"]
    for name in ("angry", "disgust"):
        class_sizes = [
            dataset.manifest.counts[split][name] for split in ("train", "validation", "test")
        ]
        assert abs(class_sizes[1] - 0.3 * sum(class_sizes)) <= 3
        assert abs(class_sizes[2] - 0.15 * sum(class_sizes)) <= 3


def test_a_dataset_without_training_rows_is_refused(prepare, tmp_path) -> None:
    file = write_csv(
        tmp_path / "a.csv", [format_row(n, make_image(n), "PrivateTest") for n in range(3)]
    )

    with pytest.raises(DatasetError, match="no training rows are left of 3 records"):
        prepare(file, to=tmp_path / "out")

    assert not (tmp_path / "out" / "manifest.json").exists()
