import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.learning.inference.predictor import predict_with_flip


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5), st.integers(1, 6), st.integers(0, 2**31))
def test_probabilities_are_the_mean_of_image_and_mirror_image(count, size, seed):
    random = np.random.default_rng(seed)
    pixels = random.integers(0, 256, (count, size, size), np.uint8)
    weights = random.random((size * size, 3))

    def predict(images: np.ndarray) -> np.ndarray:
        assert images.dtype == np.uint8
        assert images.flags.c_contiguous
        return (images.reshape(count, size * size) @ weights).astype(np.float32)

    probabilities = predict_with_flip(predict, pixels)
    # An image and its mirror image have the same mean.
    mean = (pixels.astype(float) + pixels[:, :, ::-1]) / 2
    assert probabilities.dtype == np.float32
    assert probabilities == pytest.approx(mean.reshape(count, size * size) @ weights, rel=1e-5)
