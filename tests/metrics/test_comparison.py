import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fer_pipeline.metrics import significance
from fer_pipeline.metrics.classification import compute_metrics
from fer_pipeline.metrics.comparison import (
    BenchmarkSettings,
    Comparison,
    Cost,
    ModelResult,
    shorten_to_unique_names,
)
from fer_pipeline.metrics.comparison_tables import (
    format_cost_table,
    format_pairwise_table,
    format_quality_table,
)
from fer_pipeline.metrics.significance import PairwiseTest

CLASSES = ("happy", "sad")
LABELS = np.repeat([0, 1], [6, 4])
# The images that each run classifies correctly: the first misses one, the second the last six.
IS_CORRECT = np.ones((2, 10), bool)
IS_CORRECT[0, 9], IS_CORRECT[1, 4:] = False, False
HAS_COPY = np.arange(10) == 0


def make_probabilities(is_correct: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """Return predictions with a confidence of 0.9 each."""
    confidence = np.where(is_correct, 0.9, 0.1)
    return np.where(LABELS[:, None] == [0, 1], confidence[:, None], 1 - confidence[:, None])


def make_model(index: int, **changes: Any) -> ModelResult:
    predicted = make_probabilities(IS_CORRECT[index])
    costs = (
        Cost(1_234_567, 90_000_000, (), 2000.0),
        Cost(57_527, None, ("Embedding", "MyOwn"), 50.0),
    )
    model = ModelResult(
        name=("run_a", "b/run")[index],
        path=("/runs/run_a", "/runs/b/run")[index],
        sha256="5" * 64,
        dataset_checksum="0" * 16,
        network=("compact", "my_module.build")[index],
        size=(48, 28)[index],
        precision=("mixed_bfloat16", "float32")[index],
        cost=costs[index],
        metrics=compute_metrics(LABELS, predicted, CLASSES),
        without_overlap=compute_metrics(LABELS[~HAS_COPY], predicted[~HAS_COPY], CLASSES),
    )
    return dataclasses.replace(model, **changes)


@pytest.fixture
def comparison():
    pairs = significance.compare_classifiers(IS_CORRECT)
    return Comparison((make_model(0), make_model(1)), pairs, BenchmarkSettings(1024, 2, False), 1)


def split_cells(line: str) -> list[str]:
    """Return the cells of a row of a table."""
    return re.split(r" {2,}", line)


class TestNames:
    @pytest.mark.parametrize(
        ("folders", "expected"),
        [
            (["/r/a", "/r/b"], ["a", "b"]),
            (["/x/run", "/y/run"], ["x/run", "y/run"]),
            (["/1/x/run", "/2/x/run", "/1/b"], ["1/x/run", "2/x/run", "b"]),
            # The first path is the end of the second.
            (["/run", "/y/run"], ["/run", "y/run"]),
            (["/y/run", "/run"], ["y/run", "/run"]),
            (["/only"], ["only"]),
        ],
    )
    def test_names_are_as_short_as_possible(self, folders, expected):
        assert shorten_to_unique_names([Path(folder) for folder in folders]) == expected

    @given(st.sets(st.lists(st.sampled_from("ab"), min_size=1, max_size=3).map(tuple), min_size=1))
    def test_names_are_unique_and_the_ends_of_their_folders(self, parts):
        folders = [Path("/", *part) for part in sorted(parts)]
        names = shorten_to_unique_names(folders)
        assert len(set(names)) == len(folders)
        assert all(str(folder).endswith(name) for folder, name in zip(folders, names, strict=True))


class TestComparison:
    def test_a_comparison_computes_ratios_and_differences(self, comparison):
        assert comparison.image_count == 10
        assert comparison.speed_ratios == [1.0, 0.025]
        (pair,) = comparison.pairs
        assert pair == PairwiseTest(0, 1, 5, 0, 2 / 32, 2 / 32)
        # 9 of 10 against 4 of 10.
        assert comparison.compute_accuracy_difference(pair) == 0.5

    def test_a_comparison_is_written_as_json(self, comparison):
        document = json.loads(json.dumps(comparison.to_dict(), allow_nan=False))
        models = document.pop("models")
        assert document == {
            "batch_size": 1024,
            "cores": 2,
            "flip_tta": False,
            "rows": 10,
            "copies_in_training": 1,
            "pairs": [
                {
                    "first": "run_a",
                    "second": "b/run",
                    "difference": 0.5,
                    "only_first": 5,
                    "only_second": 0,
                    "p": 0.0625,
                    "p_holm": 0.0625,
                    "significant": False,
                }
            ],
        }
        second = comparison.models[1]
        assert models[1] == {
            "name": "b/run",
            "path": "/runs/b/run",
            "sha256": "5" * 64,
            "dataset_checksum": "0" * 16,
            "network": "my_module.build",
            "size": 28,
            "precision": "float32",
            "parameters": 57_527,
            "multiply_adds": None,
            "uncounted_layers": ["Embedding", "MyOwn"],
            "images_per_second": 50.0,
            "ratio_to_first": 0.025,
            **second.metrics.accuracies_to_dict(),
            "expected_calibration_error": second.metrics.calibration.error,
            "without_copies_in_training": second.without_overlap.accuracies_to_dict(),
        }
        assert (models[1]["rows"], models[1]["accuracy"]) == (10, 0.4)
        assert models[1]["without_copies_in_training"]["rows"] == 9


class TestCostTable:
    def test_the_table_has_all_rows_and_notes(self, comparison):
        assert format_cost_table(comparison) == (
            "model  network          pixels  precision       parameters  multiply-adds  images/s"
            "   ratio\n"
            "run_a  compact          48x48   mixed_bfloat16   1,234,567     90,000,000     2,000"
            "    1.00\n"
            "b/run  my_module.build  28x28   float32             57,527              ?        50"
            "  0.0250\n"
            "(multiply-adds: per image, convolution and dense layers only; images/s: forward"
            " passes\n"
            " in batches of 1,024, cores: 2; ratio: relative to the first model)\n"
            "(b/run: layers not counted: Embedding, MyOwn)"
        )

    def test_with_flip_tta_the_table_states_that_costs_are_of_one_pass(self, comparison):
        flipped = dataclasses.replace(comparison, settings=BenchmarkSettings(256, 1, True))
        assert "two forward passes per image; these costs are for one" in format_cost_table(flipped)
        assert "two forward passes" not in format_cost_table(comparison)


class TestQualityTable:
    def test_the_table_has_columns_of_all_and_of_new_images(self, comparison):
        header, first, second, *notes = format_quality_table(comparison).splitlines()
        titles = ["accuracy, all", "mean per class, all", "accuracy, new", "mean per class, new"]
        assert split_cells(header) == ["model", *titles, "ECE"]
        interval = comparison.models[1].metrics.intervals.accuracy
        name, accuracy, mean, new, new_mean, error = split_cells(second)
        assert name == "b/run"
        assert accuracy == f"40.0 [{100 * interval.low:.1f}..{100 * interval.high:.1f}]"
        # 4 of 6 and 0 of 4; without the first image 3 of 5 and 0 of 4.
        assert [cell.split()[0] for cell in (mean, new, new_mean)] == ["33.3", "33.3", "30.0"]
        assert error == "50.0"
        assert split_cells(first)[0] == "run_a"
        assert notes == [
            "(in per cent, with 95 % intervals; ECE: expected calibration error, on all; all: 10"
            " images;",
            " new: the 9 images without an exact copy in the train split)",
        ]

    @pytest.mark.parametrize(
        ("copies", "end"),
        [
            (0, "images;\n no image has an exact copy in the train split)"),
            (10, "images;\n all images have an exact copy in the train split)"),
            (None, "all: 10 images)"),
        ],
    )
    def test_without_new_images_their_columns_are_left_out(self, comparison, copies, end):
        entries = tuple(
            dataclasses.replace(model, without_overlap=None) for model in comparison.models
        )
        table = format_quality_table(
            dataclasses.replace(comparison, models=entries, overlap_count=copies)
        )
        titles = ["accuracy, all", "mean per class, all"]
        assert split_cells(table.splitlines()[0]) == ["model", *titles, "ECE"]
        assert len(split_cells(table.splitlines()[1])) == 4
        assert table.endswith(end)


class TestPairwiseTable:
    def test_the_table_has_all_rows_and_notes(self, comparison):
        assert format_pairwise_table(comparison) == (
            "first  second  points  only first  only second      p   Holm  at 5 %\n"
            "run_a  b/run    +50.0           5            0  0.062  0.062  not significant\n"
            "(points: accuracy of the first minus the second model; only: images that only this"
            " model\n"
            " classifies correctly; p: McNemar's exact test, two-sided; Holm: p corrected for all"
            " pairs,\n"
            " which decides)"
        )

    def test_the_corrected_p_value_decides(self, comparison):
        pairs = (PairwiseTest(0, 1, 3, 1, 0.02, 0.06), PairwiseTest(0, 1, 1, 3, 1e-12, 2e-12))
        lines = format_pairwise_table(dataclasses.replace(comparison, pairs=pairs)).splitlines()
        assert split_cells(lines[1])[-3:] == ["0.02", "0.06", "not significant"]
        assert split_cells(lines[2])[2:] == ["-20.0", "1", "3", "1e-12", "2e-12", "significant"]

    def test_very_small_p_values_are_shown_as_a_bound(self, comparison):
        pairs = (PairwiseTest(0, 1, 5, 0, 0.0, 1e-300),)
        line = format_pairwise_table(dataclasses.replace(comparison, pairs=pairs)).splitlines()[1]
        assert split_cells(line)[-3:] == ["<1e-99", "<1e-99", "significant"]
