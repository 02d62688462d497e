import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from fer_pipeline.metrics.significance import (
    ALPHA,
    PairwiseTest,
    apply_holm_correction,
    compare_classifiers,
    compute_mcnemar_p_values,
)

counts = st.integers(0, 12)
p_value_lists = st.lists(st.floats(0, 1), max_size=8)


class TestInvalidInput:
    @pytest.mark.parametrize(
        "correct",
        [
            np.zeros((2, 0), bool),
            np.zeros(4, bool),
            np.zeros((2, 3)),
            np.zeros((2, 3), np.int64),
        ],
    )
    def test_other_arrays_than_a_table_of_booleans_are_refused(self, correct):
        with pytest.raises(ValueError, match="expected booleans of shape") as error:
            compare_classifiers(correct)
        assert str(error.value).endswith(f"got {correct.dtype} of shape {correct.shape}")


class TestMcNemar:
    # By hand: twice the sum of the binomial coefficients up to the lesser count, over 2 ** n.
    @pytest.mark.parametrize(
        ("first", "second", "p"),
        [
            (0, 0, 1.0),
            (0, 1, 1.0),
            (0, 5, 2 * 1 / 32),
            (0, 6, 2 * 1 / 64),
            (1, 8, 2 * (1 + 9) / 512),
            (2, 9, 2 * (1 + 11 + 55) / 2048),
            (4, 6, 2 * (1 + 10 + 45 + 120 + 210) / 1024),
            # In the middle, both tails contain the same outcome.
            (5, 5, 1.0),
        ],
    )
    def test_p_values_equal_those_computed_by_hand(self, first, second, p):
        assert float(compute_mcnemar_p_values(first, second)) == pytest.approx(p, rel=1e-12)
        assert float(compute_mcnemar_p_values(second, first)) == pytest.approx(p, rel=1e-12)

    @given(counts, counts)
    @settings(deadline=None)
    def test_p_values_equal_those_by_enumeration(self, first, second):
        """Count all ways in which the images can be divided between the two models."""
        images, difference = first + second, abs(first - second)
        extreme_ways = sum(
            math.comb(images, count)
            for count in range(images + 1)
            if abs(images - 2 * count) >= difference
        )
        assert float(compute_mcnemar_p_values(first, second)) == pytest.approx(
            extreme_ways / 2**images, rel=1e-12
        )

    @given(st.lists(st.tuples(st.integers(0, 4000), st.integers(0, 4000)), max_size=5))
    @settings(max_examples=25, deadline=None)
    def test_many_p_values_at_once_equal_those_of_scipy(self, pairs):
        table = np.array(pairs, np.int64).reshape(-1, 2)
        expected = [binomtest(a, a + b).pvalue if a + b else 1.0 for a, b in pairs]
        assert compute_mcnemar_p_values(table[:, 0], table[:, 1]) == pytest.approx(
            np.array(expected), rel=1e-9
        )


class TestHolm:
    def test_p_values_equal_those_computed_by_hand(self):
        # Sorted .01 .02 .03 .04, times 4, 3, 2, 1: .04 .06 .06 .04, and none below its predecessor.
        assert apply_holm_correction([0.04, 0.01, 0.03, 0.02]) == pytest.approx(
            [0.06, 0.04, 0.06, 0.06]
        )
        assert apply_holm_correction([0.5, 0.9]) == pytest.approx([1.0, 1.0])
        assert apply_holm_correction([0.01]) == pytest.approx([0.01])
        assert apply_holm_correction([]).shape == (0,)

    @given(p_value_lists, st.floats(0.001, 0.2))
    def test_the_same_hypotheses_are_rejected_as_by_the_procedure(self, p_values, level):
        """Apply Holm's procedure: reject from the smallest p on, until one is not rejected."""
        rejected = set()
        for step, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
            # Multiply as the correction does: a division would round differently.
            if p_values[index] * (len(p_values) - step) > level:
                break
            rejected.add(index)
        assert {i for i, p in enumerate(apply_holm_correction(p_values)) if p <= level} == rejected

    @given(p_value_lists)
    def test_corrected_p_values_are_never_smaller_and_keep_their_order(self, p_values):
        corrected = apply_holm_correction(p_values)
        assert all(p <= q <= 1 for p, q in zip(p_values, corrected, strict=True))
        for i, j in itertools.permutations(range(len(p_values)), 2):
            assert p_values[i] > p_values[j] or corrected[i] <= corrected[j]


class TestCompare:
    def test_p_values_equal_those_computed_by_hand(self):
        # Of 12 images: the first gets all, the second 6, the third the other 6.
        correct = np.zeros((3, 12), bool)
        correct[0], correct[1, :6], correct[2, 6:] = True, True, True
        p = 2 / 64
        assert compare_classifiers(correct) == (
            PairwiseTest(0, 1, 6, 0, p, 3 * p),
            PairwiseTest(0, 2, 6, 0, p, 3 * p),
            PairwiseTest(1, 2, 6, 6, 1.0, 1.0),
        )

    def test_equal_classifiers_do_not_differ_significantly(self):
        (pair,) = compare_classifiers(np.tile(np.arange(5) < 3, (2, 1)))
        assert pair == PairwiseTest(0, 1, 0, 0, 1.0, 1.0)
        assert not pair.is_significant

    def test_a_single_classifier_has_no_pairs(self):
        assert compare_classifiers(np.ones((1, 4), bool)) == ()

    @given(
        st.integers(1, 5).flatmap(
            lambda images: st.lists(
                st.lists(st.booleans(), min_size=images, max_size=images), min_size=2, max_size=5
            )
        )
    )
    @settings(max_examples=30, deadline=None)
    def test_counts_image_by_image(self, rows):
        pairs = compare_classifiers(np.array(rows))
        assert [(pair.first, pair.second) for pair in pairs] == list(
            itertools.combinations(range(len(rows)), 2)
        )
        for pair in pairs:
            both = list(zip(rows[pair.first], rows[pair.second], strict=True))
            assert pair.only_first == both.count((True, False))
            assert pair.only_second == both.count((False, True))
            assert pair.p_value == compute_mcnemar_p_values(pair.only_first, pair.only_second)
        assert [pair.adjusted_p_value for pair in pairs] == list(
            apply_holm_correction([pair.p_value for pair in pairs])
        )

    def test_adjusted_p_values_below_five_per_cent_are_significant(self):
        assert ALPHA == 0.05
        assert PairwiseTest(0, 1, 9, 0, 0.001, 0.049).is_significant
        assert not PairwiseTest(0, 1, 9, 0, 0.001, 0.05).is_significant
