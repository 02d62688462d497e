"""Which image goes where, and which is dropped."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from fer_pipeline.data.outcomes import DropReason
from fer_pipeline.errors import DatasetError
from tests.helpers.fer_csv import format_row, make_image, write_csv
from tests.helpers.preprocessed import build_expected_row

SIZES = (60, 5, 44, 71, 33, 28, 59)
DRAWN = {"method": "stratified", "validation": 0.1, "test": 0.15}
MADE = {
    "split": DRAWN,
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
    """All that can hang on the order of rows, in their own order and in two partitions."""
    path = tmp_path_factory.mktemp("base") / "a.csv"
    _write(path, lines)
    return prepare(path, **MADE)


def _write(path, lines) -> None:
    path.write_text("\n".join(["emotion,pixels,Usage", *lines]))


def _content(made) -> Counter:
    """The rows without their place in the input."""
    return Counter(
        tuple(value for key, value in sorted(row.items()) if key not in ("source", "record"))
        for row in made.rows
    )


def test_each_class_is_shared_out_to_one_image(base) -> None:
    kept = base.manifest.rows.kept
    whole = np.array([sum(kept[s][name] for s in kept) for name in base.manifest.classes])
    # Image 70 is fear's and image 299 neutral's: both are dropped with their copies.
    left = np.array(SIZES) - (np.arange(7) == 2) - (np.arange(7) == 6)
    assert whole.tolist() == left.tolist()
    for name, count in zip(base.manifest.classes, left.tolist(), strict=True):
        assert abs(kept["validation"][name] - 0.1 * count) <= 0.5
        assert abs(kept["test"][name] - 0.15 * count) <= 0.5
    assert base.manifest.rows.dropped == {
        **dict.fromkeys(DropReason, 0),
        DropReason.CONFLICT: 4,
        DropReason.COPY: 3,
    }


def test_no_image_is_in_two_splits(base) -> None:
    splits = defaultdict(set)
    for row in base.rows:
        splits[row["image_hash"]].add(row["split"])

    assert all(len(found) == 1 for found in splits.values())
    assert len(splits) == sum(SIZES) - 2


@pytest.mark.parametrize("partitions", [1, 5])
def test_partitions_and_the_order_of_rows_change_nothing(
    prepare, lines, base, tmp_path, partitions
) -> None:
    _write(tmp_path / "a.csv", np.random.default_rng(partitions).permutation(lines).tolist())

    made = prepare(tmp_path / "a.csv", output={"files_per_split": partitions}, **MADE)

    assert made.manifest.checksum == base.manifest.checksum
    assert _content(made) == _content(base)
    assert made.manifest.sources[0].fingerprint == base.manifest.sources[0].fingerprint


def test_how_many_files_hold_the_rows_changes_nothing(prepare, lines, base, tmp_path) -> None:
    for part in range(3):
        _write(tmp_path / f"{part}.csv", lines[part::3])

    made = prepare(tmp_path, output={"files_per_split": 3}, **MADE)

    assert made.manifest.checksum == base.manifest.checksum
    assert _content(made) == _content(base)


def test_another_seed_draws_another_split(prepare, lines, base, tmp_path) -> None:
    _write(tmp_path / "a.csv", lines)

    made = prepare(tmp_path / "a.csv", seed=1, **MADE)

    def drawn(found):
        return {row["image_hash"] for row in found.rows if row["split"] == "test"}

    assert made.manifest.rows == base.manifest.rows
    assert made.manifest.checksum != base.manifest.checksum
    # Of 15 % drawn twice, 2 % of all are drawn both times.
    assert len(drawn(made) & drawn(base)) < len(drawn(base)) / 2


def test_usages_mean_what_the_configuration_says(prepare, tmp_path) -> None:
    usages = ["Training", "publictest", "PrivateTest", " TRAIN ", "val", "Holdout", "extra"]
    file = write_csv(
        tmp_path / "a.csv", [format_row(n, make_image(n), usage) for n, usage in enumerate(usages)]
    )

    made = prepare(
        file,
        split={
            "usage_to_split": {"PublicTest": "test", "PrivateTest": None, "Extra": "validation"}
        },
        input={"max_quarantined_fraction": 0.2},
    )

    splits = {0: "train", 1: "test", 3: "train", 4: "validation", 6: "validation"}
    assert made.rows == [
        build_expected_row(file, n, n, make_image(n), split) for n, split in splits.items()
    ]
    assert made.manifest.rows.dropped["usage not selected"] == 1
    assert [(row["record"], row["detail"]) for row in made.quarantine] == [(5, "usage 'Holdout'")]


def test_validation_is_drawn_from_training_alone(prepare, tmp_path) -> None:
    """The split of the shared data: PublicTest is test, validation a part of Training."""
    rows = [format_row(n % 2, make_image(n)) for n in range(40)]
    rows += [format_row(n % 2, make_image(n), "PublicTest") for n in range(36, 50)]
    rows += [format_row(n % 2, make_image(n), "PrivateTest") for n in range(50, 60)]
    file = write_csv(tmp_path / "a.csv", rows)
    usage = {"Training": "train", "PublicTest": "test", "PrivateTest": None}

    made = prepare(file, split={"usage_to_split": usage, "validation": 0.25})

    where = {row["record"]: row["split"] for row in made.rows}
    assert {record for record, split in where.items() if split == "test"} == set(range(40, 54))
    # Four of the forty are copies of test images; of 18 of a class, 4.5 are 5.
    for label in range(2):
        of_label = [where[n] for n in range(label, 36, 2)]
        assert Counter(of_label) == {"train": 13, "validation": 5}
    assert made.manifest.rows.dropped[DropReason.COPY_OF_EVALUATION] == 4
    assert made.manifest.rows.dropped[DropReason.USAGE] == 10


# An image, its label and usage; and why it is dropped, or the split that it is in.
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
    # A row that is left out for its class has no say; one whose usage is left out is kept back.
    ("G", 0, "Training", "train"),
    ("G", 6, "Training", DropReason.CLASS),
    ("H", 1, "Training", DropReason.COPY_OF_EVALUATION),
    ("H", 0, "Unused", DropReason.USAGE),
    ("I", 6, "Unused", DropReason.CLASS),
    ("J", 3, "Training", "train"),
    ("J", 6, "PrivateTest", DropReason.CLASS),
]
CLASSES = ("angry", "disgust", "fear", "happy", "sad")
RULES = {"classes": CLASSES, "split": {"usage_to_split": {"Unused": None}}}


@pytest.fixture
def copies(tmp_path):
    """The file of COPIES; and its images."""
    shown = [make_image(ord(name)) for name, *_ in COPIES]
    rows = [
        format_row(label, image, usage)
        for image, (_, label, usage, _) in zip(shown, COPIES, strict=True)
    ]
    return write_csv(tmp_path / "a.csv", rows), shown


def test_copies_are_dropped_for_the_first_cause_that_applies(prepare, copies) -> None:
    file, shown = copies

    made = prepare(file, **RULES)

    assert made.rows == [
        build_expected_row(file, record, label, shown[record], where)
        for record, (_, label, _, where) in enumerate(COPIES)
        if not isinstance(where, DropReason)
    ]
    causes = Counter(where for *_, where in COPIES)
    assert made.manifest.rows.dropped == {cause: causes[cause] for cause in DropReason}


def test_without_deduplication_all_copies_stay(prepare, copies) -> None:
    file, shown = copies
    split = {"deduplicate": False, **RULES["split"]}

    made = prepare(file, classes=CLASSES, split=split)

    usages = {"Training": "train", "PublicTest": "validation", "PrivateTest": "test"}
    assert made.rows == [
        build_expected_row(file, record, label, shown[record], usages[usage])
        for record, (_, label, usage, where) in enumerate(COPIES)
        if where not in (DropReason.CLASS, DropReason.USAGE)
    ]
    assert sum(made.manifest.rows.dropped.values()) == 4


def test_without_deduplication_copies_are_drawn_together(prepare, tmp_path) -> None:
    shown = [n for n in range(40) for _ in range(1 + (n % 4 == 0) * 2)]
    rows = [format_row(n % 2, make_image(n)) for n in shown]
    conflict = [format_row(0, make_image(99)), format_row(1, make_image(99))]
    file = write_csv(tmp_path / "a.csv", rows + conflict)

    made = prepare(file, split={**DRAWN, "validation": 0.3, "deduplicate": False})

    assert len(made.rows) == len(rows) + 2
    splits = defaultdict(set)
    for row in made.rows:
        splits[row["image_hash"]].add(row["split"])
    assert all(len(found) == 1 for found in splits.values())
    # Copies under two labels belong to no class that they could be drawn for.
    assert [row["split"] for row in made.rows[-2:]] == ["train", "train"]
    for name in ("angry", "disgust"):
        of_class = [made.manifest.counts[split][name] for split in ("train", "validation", "test")]
        assert abs(of_class[1] - 0.3 * sum(of_class)) <= 3
        assert abs(of_class[2] - 0.15 * sum(of_class)) <= 3


def test_nothing_left_to_train_on(prepare, tmp_path) -> None:
    file = write_csv(
        tmp_path / "a.csv", [format_row(n, make_image(n), "PrivateTest") for n in range(3)]
    )

    with pytest.raises(DatasetError, match="no training rows are left of 3 records"):
        prepare(file, to=tmp_path / "out")

    assert not (tmp_path / "out" / "manifest.json").exists()
