import dataclasses
import json
import math
import warnings

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, classification_report, top_k_accuracy_score

from fer_pipeline.data.emotions import FER2013
from fer_pipeline.metrics.bootstrap import compute_bootstrap_intervals
from fer_pipeline.metrics.classification import (
    ClassMetrics,
    ClassScores,
    ConfusedPair,
    Metrics,
    compute_metrics,
)
from fer_pipeline.metrics.inputs import predict_classes
from fer_pipeline.metrics.tables import (
    format_class_table,
    format_confused_pairs,
    format_confusion_table,
    format_coverage_table,
    format_overall_metrics,
    format_overlap_table,
)
from fer_pipeline.metrics.train_test_overlap import OverlapReport, compute_overlap_report

# Of reference system A, as its authors report it: An, Dis, Fe, Ha, Sa, Sup, Neu.
ACTUAL = (910, 94, 910, 1721, 1136, 653, 1152)
PREDICTED = (444, 187, 636, 1956, 1534, 935, 884)
TRUE_POSITIVES = (200, 63, 220, 1297, 543, 448, 449)

# scikit-learn takes about 10 ms for an evaluation, however few images it has.
fast = settings(max_examples=40, deadline=None)


def predict_with_confidence(
    predicted: npt.NDArray[np.int64], classes: int
) -> npt.NDArray[np.float32]:
    """Return probabilities that predict these classes, each with 0.7."""
    probabilities = np.full((len(predicted), classes), 0.3 / (classes - 1), np.float32)
    probabilities[np.arange(len(predicted)), predicted] = 0.7
    return probabilities


def evaluate_system_a() -> Metrics:
    """Evaluate reference system A, with invented mistakes: they are not reported one by one."""
    actual, predicted, correct = (np.array(row) for row in (ACTUAL, PREDICTED, TRUE_POSITIVES))
    wrong_labels = np.repeat(np.arange(7), actual - correct)
    # Rolled so far that no mistake is correct by chance.
    wrong_predictions = np.roll(np.repeat(np.arange(7), predicted - correct), 1071)
    assert (wrong_labels != wrong_predictions).all()
    correct_labels = np.repeat(np.arange(7), correct)
    return compute_metrics(
        np.concatenate([correct_labels, wrong_labels]),
        predict_with_confidence(np.concatenate([correct_labels, wrong_predictions]), 7),
        FER2013,
    )


@st.composite
def outcomes(draw: st.DrawFn, classes: int | None = None) -> tuple[list[int], np.ndarray]:
    """Return labels and float32 probabilities, often with ties, zeros and absent classes."""
    k = classes or draw(st.integers(2, 8))
    n = draw(st.integers(1, 30))
    labels = draw(st.lists(st.integers(0, k - 1), min_size=n, max_size=n))
    weight = st.lists(st.sampled_from([0, 0, 1, 1, 2, 5, 1000]), min_size=k, max_size=k)
    rows = draw(st.lists(weight.filter(any), min_size=n, max_size=n))
    weights = np.array(rows, np.float32)
    return labels, weights / weights.sum(axis=1, keepdims=True)


def make_class_names(probabilities: np.ndarray) -> list[str]:
    return [f"class {label}" for label in range(probabilities.shape[1])]


def collapse_spaces(lines: list[str]) -> list[str]:
    """Replace several spaces by one in the lines of a table."""
    return [" ".join(line.split()) for line in lines]


def list_leaves(tree: object) -> list[object]:
    """Return all leaves of nested dictionaries and lists."""
    if isinstance(tree, dict):
        return [leaf for branch in tree.values() for leaf in list_leaves(branch)]
    if isinstance(tree, list):
        return [leaf for branch in tree for leaf in list_leaves(branch)]
    return [tree]


class TestMetricsByHand:
    # True class 0: predicted 0, 0, 1; true 1: predicted 1; true 2: predicted 0, second 2.
    labels = (0, 0, 0, 1, 2)
    probabilities = (
        (0.5, 0.25, 0.25),
        (0.5, 0.5, 0.0),  # the first of equal probabilities counts
        (0.25, 0.5, 0.25),  # two equal second probabilities: the first of them counts
        (0.0, 1.0, 0.0),
        (0.5, 0.125, 0.375),
    )

    def test_all_metrics_equal_those_computed_by_hand(self):
        metrics = compute_metrics(self.labels, self.probabilities, ["angry", "happy", "sad"])
        assert metrics.confusion == ((2, 1, 0), (0, 1, 0), (1, 0, 0))
        assert metrics.classes == (
            ClassMetrics("angry", 3, 3, 2, ClassScores(2 / 3, 2 / 3, 2 / 3)),
            ClassMetrics("happy", 1, 2, 1, ClassScores(1.0, 0.5, 2 / 3)),
            ClassMetrics("sad", 1, 0, 0, ClassScores(0.0, 0.0, 0.0)),
        )
        assert metrics.image_count == 5
        assert metrics.accuracy == 3 / 5
        assert metrics.mean_class_accuracy == pytest.approx(5 / 9)
        assert metrics.macro.accuracy == pytest.approx(5 / 9)
        assert metrics.macro.precision == pytest.approx((2 / 3 + 1 / 2) / 3)
        assert metrics.macro.f1 == pytest.approx(4 / 9)
        assert metrics.weighted.accuracy == pytest.approx(3 / 5)
        assert metrics.weighted.precision == pytest.approx((3 * 2 / 3 + 1 / 2) / 5)
        assert metrics.weighted.f1 == pytest.approx((3 * 2 / 3 + 2 / 3) / 5)
        assert metrics.top2_accuracy == 1.0
        # -ln of 1/2, 1/2, 1/4, 1, 3/8
        assert metrics.loss == pytest.approx((4 * math.log(2) + math.log(8 / 3)) / 5)

    def test_metrics_are_written_as_json(self):
        document = compute_metrics(
            self.labels, self.probabilities, ["angry", "happy", "sad"]
        ).to_dict()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert list(document) == [
            "rows",
            "accuracy",
            "accuracy_interval",
            "mean_class_accuracy",
            "mean_class_accuracy_interval",
            "top2_accuracy",
            "loss",
            "intervals",
            "classes",
            "macro_average",
            "weighted_average",
            "confusion_matrix",
            "confused_pairs",
            "calibration",
            "coverage",
        ]
        assert list(document["classes"]) == ["angry", "happy", "sad"]
        assert document["classes"]["happy"] == {
            "actual": 1,
            "predicted": 2,
            "true_positives": 1,
            "accuracy": 1.0,
            "precision": 0.5,
            "recall": 1.0,
            "f1": 2 / 3,
            "support": 1,
            "accuracy_interval": [1.0, 1.0],
        }
        assert document["confusion_matrix"] == [[2, 1, 0], [0, 1, 0], [1, 0, 0]]
        assert document["confused_pairs"] == [
            {"true": "sad", "predicted": "angry", "images": 1, "share": 1.0},
            {"true": "angry", "predicted": "happy", "images": 1, "share": 1 / 3},
        ]

    def test_intervals_calibration_and_coverage_are_written_as_json(self):
        metrics = compute_metrics(
            self.labels, self.probabilities, ["angry", "happy", "sad"], seed=9
        )
        document = metrics.to_dict()
        intervals = compute_bootstrap_intervals([3, 1, 1], [2, 1, 0], seed=9)
        assert document["accuracy_interval"] == [intervals.accuracy.low, intervals.accuracy.high]
        mean = intervals.mean_class_accuracy
        assert document["mean_class_accuracy_interval"] == [mean.low, mean.high]
        assert mean != intervals.accuracy
        assert document["intervals"] == {
            "method": "percentile bootstrap over images",
            "level": 0.95,
            "resamples": 10_000,
            "seed": 9,
        }
        # Four images have the confidence 1/2, two of them are correct; one is correct with 1.
        assert document["calibration"] == {
            "expected_calibration_error": 0.0,
            "mean_confidence": 0.6,
            "bins": [
                {
                    "low": pytest.approx(i / 15),
                    "high": pytest.approx((i + 1) / 15),
                    "images": {7: 4, 14: 1}.get(i, 0),
                    "confidence": {7: 0.5, 14: 1.0}.get(i),
                    "accuracy": {7: 0.5, 14: 1.0}.get(i),
                }
                for i in range(15)
            ],
        }
        assert document["coverage"] == [
            {
                "requested": requested,
                "coverage": 1.0,
                "images": 5,
                "min_confidence": 0.5,
                "accuracy": 0.6,
            }
            for requested in (1.0, 0.9, 0.8, 0.7, 0.5)
        ]

    def test_a_probability_of_zero_has_a_finite_loss(self):
        metrics = compute_metrics([0], [[0.0, 1.0]], ["angry", "happy"])
        assert metrics.loss == pytest.approx(-math.log(np.finfo(np.float64).eps))


class TestReferenceSystemA:
    def test_the_class_metrics_are_those_of_the_paper(self):
        metrics = evaluate_system_a()
        assert tuple(class_metrics.actual for class_metrics in metrics.classes) == ACTUAL
        assert tuple(class_metrics.predicted for class_metrics in metrics.classes) == PREDICTED
        assert (
            tuple(class_metrics.true_positives for class_metrics in metrics.classes)
            == TRUE_POSITIVES
        )
        assert [
            round(class_metrics.scores.accuracy or 0, 3) for class_metrics in metrics.classes
        ] == [0.220, 0.670, 0.242, 0.754, 0.478, 0.686, 0.390]

    def test_the_accuracy_is_that_of_the_table_of_the_paper(self):
        # It reports 48.8 %; its own table says 3220 of 6576.
        assert evaluate_system_a().image_count == 6576
        assert evaluate_system_a().accuracy == 3220 / 6576
        assert round(100 * evaluate_system_a().accuracy, 1) == 49.0

    def test_the_table_in_the_terminal_is_aligned(self):
        # The interval of angry: 0.22 +- 1.96 sqrt(0.22 x 0.78 / 910), up to the resampling.
        lines = format_class_table(evaluate_system_a()).splitlines()
        assert collapse_spaces(lines) == [
            "actual predicted true positives accuracy 95 % interval precision F1",
            "angry 910 444 200 22.0 % 19.3..24.7 % 45.0 % 29.5 %",
            "disgust 94 187 63 67.0 % 57.5..76.3 % 33.7 % 44.8 %",
            "fear 910 636 220 24.2 % 21.4..27.0 % 34.6 % 28.5 %",
            "happy 1,721 1,956 1,297 75.4 % 73.3..77.4 % 66.3 % 70.5 %",
            "sad 1,136 1,534 543 47.8 % 44.9..50.6 % 35.4 % 40.7 %",
            "surprise 653 935 448 68.6 % 65.0..72.1 % 47.9 % 56.4 %",
            "neutral 1,152 884 449 39.0 % 36.2..41.8 % 50.8 % 44.1 %",
            "macro average 49.1 % 47.4..50.8 % 44.8 % 44.9 %",
            "weighted average 49.0 % 47.8..50.2 % 48.6 % 47.5 %",
            "all 6,576 6,576 3,220 49.0 % 47.8..50.2 %",
            "(actual: the support; accuracy of a class: its recall; -: it has no image)",
        ]
        assert lines[:2] == [
            "                  actual  predicted  true positives"
            "  accuracy  95 % interval  precision      F1",
            "angry                910        444             200"
            "    22.0 %   19.3..24.7 %     45.0 %  29.5 %",
        ]
        # The rows with all columns are aligned.
        assert {len(line) for line in lines[:8]} == {len(lines[0])}


class TestAbsentClasses:
    def test_an_absent_class_has_no_scores(self):
        # No image is sad, but one is predicted as sad; none is predicted as fear.
        metrics = compute_metrics(
            [0, 0, 1, 1],
            predict_with_confidence(np.array([0, 2, 0, 0]), 3),
            ["angry", "fear", "sad"],
        )
        assert metrics.classes == (
            ClassMetrics("angry", 2, 3, 1, ClassScores(0.5, 1 / 3, 0.4)),
            ClassMetrics("fear", 2, 0, 0, ClassScores(0.0, 0.0, 0.0)),
            ClassMetrics("sad", 0, 1, 0, ClassScores(None, None, None)),
        )
        assert metrics.macro == ClassScores(0.25, 1 / 6, 0.2)
        assert metrics.weighted == ClassScores(0.25, 1 / 6, 0.2)
        assert metrics.accuracy == metrics.mean_class_accuracy == 0.25
        assert metrics.to_dict()["classes"]["sad"] == {
            "actual": 0,
            "predicted": 1,
            "true_positives": 0,
            "support": 0,
            **dict.fromkeys(["accuracy", "precision", "recall", "f1", "accuracy_interval"]),
        }
        assert collapse_spaces(format_class_table(metrics).splitlines()[1:4]) == [
            "angry 2 3 1 50.0 % 0.0..100.0 % 33.3 % 40.0 %",
            "fear 2 0 0 0.0 % 0.0..0.0 % 0.0 % 0.0 %",
            "sad 0 1 0 - - - -",
        ]

    def test_a_single_present_class_determines_the_averages(self):
        metrics = compute_metrics(
            [1, 1], predict_with_confidence(np.array([1, 0]), 2), ["angry", "happy"]
        )
        assert metrics.macro == metrics.weighted == ClassScores(0.5, 1.0, 2 / 3)
        assert metrics.top2_accuracy == 1.0


class TestInvariants:
    @fast
    @given(outcomes())
    def test_the_counts_and_averages_are_consistent(self, outcome):
        labels, probabilities = outcome
        metrics = compute_metrics(labels, probabilities, make_class_names(probabilities))
        confusion = np.array(metrics.confusion)
        k = probabilities.shape[1]
        assert confusion.sum() == metrics.image_count == len(labels)
        assert [class_metrics.actual for class_metrics in metrics.classes] == confusion.sum(
            axis=1
        ).tolist()
        assert [class_metrics.predicted for class_metrics in metrics.classes] == confusion.sum(
            axis=0
        ).tolist()
        assert [
            class_metrics.true_positives for class_metrics in metrics.classes
        ] == confusion.diagonal().tolist()
        assert [class_metrics.actual for class_metrics in metrics.classes] == np.bincount(
            labels, minlength=k
        ).tolist()
        assert metrics.accuracy <= metrics.top2_accuracy <= 1
        assert metrics.macro.accuracy == pytest.approx(metrics.mean_class_accuracy)
        assert metrics.weighted.accuracy == pytest.approx(metrics.accuracy)
        assert metrics.accuracy == accuracy_score(labels, predict_classes(probabilities))

    @fast
    @given(outcomes())
    def test_scores_equal_those_of_scikit_learn(self, outcome):
        labels, probabilities = outcome
        metrics = compute_metrics(labels, probabilities, make_class_names(probabilities))
        present = sorted(set(labels))
        report = classification_report(
            labels,
            predict_classes(probabilities),
            labels=present,
            target_names=[f"class {label}" for label in present],
            output_dict=True,
            zero_division=0,
        )
        for label, class_metrics in enumerate(metrics.classes):
            scores = [
                class_metrics.scores.precision,
                class_metrics.scores.accuracy,
                class_metrics.scores.f1,
                class_metrics.actual,
            ]
            expected = report.get(class_metrics.name) if label in present else None
            assert scores == (list(expected.values()) if expected else [None, None, None, 0])
        for name, average in (("macro avg", metrics.macro), ("weighted avg", metrics.weighted)):
            expected = [report[name][key] for key in ("recall", "precision", "f1-score")]
            assert [average.accuracy, average.precision, average.f1] == pytest.approx(expected)

    @fast
    @given(outcomes(), st.randoms(use_true_random=False))
    def test_the_order_of_the_images_does_not_matter(self, outcome, random):
        labels, probabilities = outcome
        order = list(range(len(labels)))
        random.shuffle(order)
        classes = make_class_names(probabilities)
        metrics = compute_metrics(labels, probabilities, classes)
        reordered = compute_metrics(np.array(labels)[order], probabilities[order], classes)
        assert (reordered.classes, reordered.macro, reordered.weighted) == (
            (metrics.classes, metrics.macro, metrics.weighted)
        )
        assert reordered.confusion == metrics.confusion
        assert reordered.top2_accuracy == pytest.approx(metrics.top2_accuracy)
        assert reordered.loss == pytest.approx(metrics.loss)

    @fast
    @given(outcomes(classes=3))
    def test_an_additional_class_without_images_changes_no_metric(self, outcome):
        labels, probabilities = outcome
        metrics = compute_metrics(labels, probabilities, ["a", "b", "c"])
        padded = np.pad(probabilities, ((0, 0), (0, 1)))
        wider = compute_metrics(labels, padded, ["a", "b", "c", "d"])
        assert wider.classes == (
            *metrics.classes,
            ClassMetrics("d", 0, 0, 0, ClassScores(*[None] * 3)),
        )
        assert (wider.macro, wider.weighted, wider.top2_accuracy, wider.loss) == (
            (metrics.macro, metrics.weighted, metrics.top2_accuracy, metrics.loss)
        )

    @fast
    @given(st.integers(3, 8), st.integers(0, 2**32 - 1))
    def test_top2_accuracy_without_ties_equals_that_of_scikit_learn(self, classes, seed):
        random = np.random.default_rng(seed)
        labels = random.integers(classes, size=20)
        probabilities = random.dirichlet(np.ones(classes), 20)
        metrics = compute_metrics(labels, probabilities, [str(label) for label in range(classes)])
        expected = top_k_accuracy_score(labels, probabilities, k=2, labels=np.arange(classes))
        assert metrics.top2_accuracy == expected

    @fast
    @given(outcomes())
    def test_no_warning_is_raised_and_the_json_is_valid(self, outcome):
        labels, probabilities = outcome
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            metrics = compute_metrics(labels, probabilities, make_class_names(probabilities))
            assert format_class_table(metrics)
            assert format_confusion_table(metrics)
            assert format_confused_pairs(metrics)
            assert format_overall_metrics(metrics)
            assert format_coverage_table(metrics)
        document = metrics.to_dict()
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert all(type(leaf) in (int, float, str, type(None)) for leaf in list_leaves(document))


class TestConfusionTable:
    def test_the_table_states_what_its_rows_and_columns_are(self):
        labels = np.repeat([0, 1, 1], [1200, 1, 2])
        guesses = np.repeat([1, 0, 1], [1200, 1, 2])
        metrics = compute_metrics(labels, predict_with_confidence(guesses, 2), ["angry", "fear"])
        assert format_confusion_table(metrics).splitlines() == [
            "images; rows: true class, columns: predicted class",
            "       angry   fear",
            "angry      0  1,200",
            "fear       1      2",
        ]


class TestConfusedPairs:
    # Of 4 angry, 2 fear, 2 sad and no neutral image.
    labels = (0, 0, 0, 0, 1, 1, 2, 2)
    guesses = (0, 2, 2, 1, 0, 2, 3, 2)
    classes = ("angry", "fear", "sad", "neutral")

    def compute(self) -> Metrics:
        return compute_metrics(
            self.labels, predict_with_confidence(np.array(self.guesses), 4), self.classes
        )

    def test_pairs_are_sorted_by_share_then_images_then_classes(self):
        assert self.compute().confused_pairs == [
            ConfusedPair("angry", "sad", 2, 0.5),
            ConfusedPair("fear", "angry", 1, 0.5),
            ConfusedPair("fear", "sad", 1, 0.5),
            ConfusedPair("sad", "neutral", 1, 0.5),
            ConfusedPair("angry", "fear", 1, 0.25),
        ]

    def test_the_largest_pairs_are_shown_in_the_terminal(self):
        assert format_confused_pairs(self.compute(), max_pairs=3).splitlines() == [
            "most confused          images  of the true class",
            "angry taken for sad         2             50.0 %",
            "fear  taken for angry       1             50.0 %",
            "fear  taken for sad         1             50.0 %",
        ]

    def test_without_mistakes_there_are_no_pairs(self):
        metrics = compute_metrics(
            [0, 1], predict_with_confidence(np.array([0, 1]), 2), ["angry", "fear"]
        )
        assert metrics.confused_pairs == metrics.to_dict()["confused_pairs"] == []
        assert format_confused_pairs(metrics) == "nothing is confused"

    @fast
    @given(outcomes())
    def test_the_pairs_contain_all_mistakes(self, outcome):
        labels, probabilities = outcome
        metrics = compute_metrics(labels, probabilities, make_class_names(probabilities))
        pairs = metrics.confused_pairs
        wrong = int((predict_classes(probabilities) != labels).sum())
        assert sum(pair.image_count for pair in pairs) == wrong
        assert all(0 < pair.share <= 1 for pair in pairs)
        assert pairs == sorted(pairs, key=lambda pair: pair.share, reverse=True)


class TestOverallMetrics:
    def test_the_table_names_each_metric(self):
        metrics = compute_metrics(
            [0, 1], [[0.5, 0.25, 0.25], [0.75, 0.25, 0.0]], ["angry", "fear", "sad"]
        )
        assert format_overall_metrics(metrics).splitlines() == [
            "accuracy                 50.0 % of 2 images (95 % interval 0.0..100.0 %)",
            "mean per-class accuracy  50.0 % (95 % interval 0.0..100.0 %)",
            "top-2 accuracy           100.0 %",
            "loss                     1.0397 (mean cross-entropy, in nats)",
            "calibration error        62.5 % (expected, 15 bins; mean confidence 62.5 %)",
        ]


class TestCoverageTable:
    def test_the_minimum_confidence_is_rounded_down(self):
        confidence = np.array([0.99999, 0.7, 0.66666, 0.6])
        probabilities = np.stack([confidence, 1 - confidence], axis=1)
        metrics = compute_metrics([0, 0, 1, 1], probabilities, ["angry", "fear"])
        assert format_coverage_table(metrics).splitlines() == [
            "coverage  images  least confidence  accuracy",
            " 100.0 %       4            0.6000    50.0 %",
            " 100.0 %       4            0.6000    50.0 %",
            " 100.0 %       4            0.6000    50.0 %",
            "  75.0 %       3            0.6666    66.7 %",
            "  50.0 %       2            0.7000   100.0 %",
        ]


class TestOverlap:
    labels = np.array([0, 0, 0, 1])
    probabilities = predict_with_confidence(np.array([0, 0, 1, 1]), 2)

    def compute_overlap(self, *has_copy: bool, deduplicated: bool = False) -> OverlapReport:
        all_images = compute_metrics(self.labels, self.probabilities, ["angry", "fear"], seed=2)
        mask = np.array(has_copy)
        return compute_overlap_report(
            mask, all_images, self.labels, self.probabilities, deduplicated=deduplicated
        )

    def test_copies_are_left_out(self):
        overlap = self.compute_overlap(True, False, False, False)
        expected = compute_metrics(
            self.labels[1:], self.probabilities[1:], ["angry", "fear"], seed=2
        )
        assert (overlap.overlap_count, overlap.without_overlap) == (1, expected)
        assert overlap.to_dict() == {
            "copies": 1,
            "deduplicated": False,
            "all": overlap.all_images.accuracies_to_dict(),
            "without_copies": {
                **expected.accuracies_to_dict(),
                "classes": expected.to_dict()["classes"],
            },
        }
        assert expected.accuracies_to_dict() == {
            "rows": 3,
            "accuracy": 2 / 3,
            "accuracy_interval": [0.0, 1.0],
            "mean_class_accuracy": 0.75,
            "mean_class_accuracy_interval": [0.0, 1.0],
        }
        lines = format_overlap_table(overlap).splitlines()
        assert collapse_spaces(lines) == [
            "exact copies in training images accuracy 95 % interval mean per class 95 % interval",
            "all images 4 75.0 % 25.0..100.0 % 83.3 % 25.0..100.0 %",
            "without 1 3 66.7 % 0.0..100.0 % 75.0 % 0.0..100.0 %",
        ]
        assert {len(line) for line in lines} == {len(lines[0])}

    def test_no_copies_are_reported_in_a_line(self):
        overlap = self.compute_overlap(False, False, False, False)
        assert overlap.without_overlap is overlap.all_images
        assert format_overlap_table(overlap) == "no image has an exact copy in the train split"
        assert format_overlap_table(
            self.compute_overlap(False, False, False, False, deduplicated=True)
        ) == ("no image has an exact copy in the train split (split.deduplicate)")

    def test_all_images_may_have_copies(self):
        overlap = self.compute_overlap(True, True, True, True)
        assert overlap.to_dict()["without_copies"] is None
        assert collapse_spaces(format_overlap_table(overlap).splitlines()[2:]) == [
            "without 4 0 - - - -"
        ]


class TestInvalidInput:
    @pytest.mark.parametrize(
        ("labels", "probabilities", "message"),
        [
            ([], np.zeros((0, 2)), r"shape \(n, 2\), got \(0,\) and \(0, 2\)"),
            ([0, 1], [[0.5, 0.5]], r"got \(2,\) and \(1, 2\)"),
            ([0], [[0.2, 0.3, 0.5]], r"got \(1,\) and \(1, 3\)"),
            ([2], [[0.5, 0.5]], r"whole numbers in 0\.\.1"),
            ([-1], [[0.5, 0.5]], r"whole numbers in 0\.\.1"),
            ([0.0], [[0.5, 0.5]], r"whole numbers in 0\.\.1"),
            ([0], [[math.nan, 0.5]], "not finite"),
            ([0], [[-0.5, 1.5]], "add up to 1"),
            ([0], [[3.0, 2.0]], "add up to 1"),
        ],
    )
    def test_invalid_labels_and_probabilities_are_refused(self, labels, probabilities, message):
        with pytest.raises(ValueError, match=message):
            compute_metrics(labels, probabilities, ["angry", "happy"])

    def test_a_single_class_is_refused(self):
        with pytest.raises(ValueError, match="at least two classes, got 1"):
            compute_metrics([0], [[1.0]], ["angry"])

    @pytest.mark.parametrize("class_count", [0, 2])
    def test_metrics_without_images_are_refused(self, class_count):
        metrics = compute_metrics([0], [[1.0, 0.0]], ["angry", "happy"])
        empty = ClassMetrics("fear", 0, 0, 0, ClassScores(None, None, None))
        with pytest.raises(ValueError, match="one or more images"):
            dataclasses.replace(metrics, classes=(empty,) * class_count)
