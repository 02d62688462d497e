import pytest

from fer_pipeline.data.oversampling import compute_oversampling_factors

COUNTS = {"angry": 50, "disgust": 4, "happy": 100}


def test_balancing_brings_every_class_to_the_size_of_the_largest():
    factors = compute_oversampling_factors(COUNTS, balance=True, oversample={})
    assert factors == {"angry": 2.0, "disgust": 25.0, "happy": 1.0}
    assert {name: factors[name] * count for name, count in COUNTS.items()} == {
        name: pytest.approx(100) for name in COUNTS
    }


def test_named_classes_are_oversampled_and_the_others_are_not():
    factors = compute_oversampling_factors(COUNTS, balance=False, oversample={"disgust": 2.5})
    assert factors == {"angry": 1, "disgust": 2.5, "happy": 1}


def test_an_empty_class_has_a_factor_and_no_classes_have_none():
    assert compute_oversampling_factors({"sad": 0, "happy": 3}, balance=True, oversample={}) == {
        "sad": 3.0,
        "happy": 1.0,
    }
    assert compute_oversampling_factors({}, balance=True, oversample={}) == {}
