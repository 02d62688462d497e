import os
import time

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.data.normalization import Normalization
from fer_pipeline.learning.analysis import timing
from fer_pipeline.learning.analysis.flops import count_multiply_adds, has_uncounted_kernel
from fer_pipeline.learning.analysis.network_summary import format_summary, summarize_network
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.networks import registry
from tests.helpers.one_layer import build_one_layer_network, count_products

layers = keras.layers


class TestMultiplyAdds:
    @pytest.mark.parametrize(
        ("layer", "shape", "expected"),
        [
            # Positions of the output * kernel * channels * filters.
            (layers.Conv2D(4, 3, padding="same"), (8, 6, 2), 8 * 6 * 9 * 2 * 4),
            (layers.Conv2D(4, 3, padding="valid"), (8, 6, 2), 6 * 4 * 9 * 2 * 4),
            (layers.Conv2D(4, 3, strides=2, padding="same"), (9, 6, 2), 5 * 3 * 9 * 2 * 4),
            (layers.Conv2D(4, 3, strides=2, padding="valid"), (9, 6, 2), 4 * 2 * 9 * 2 * 4),
            (layers.Conv2D(4, (5, 1), groups=2), (8, 6, 6), 4 * 6 * 5 * 3 * 4),
            (layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same"), (4, 4, 5), 16 * 9 * 10),
            (layers.SeparableConv2D(7, 3, padding="same"), (4, 4, 5), 16 * (9 * 5 + 5 * 7)),
            (layers.SeparableConv2D(7, 3, strides=2), (9, 9, 5), 4 * 4 * (9 * 5 + 5 * 7)),
            # Positions of the input.
            (layers.Conv2DTranspose(4, 3, strides=2, padding="same"), (5, 6, 3), 30 * 9 * 3 * 4),
            (layers.Conv2DTranspose(4, 2, strides=2), (5, 6, 3), 30 * 4 * 3 * 4),
            (layers.Dense(5), (7,), 35),
            (layers.Dense(5), (2, 3, 7), 6 * 35),
        ],
    )
    def test_multiply_adds_are_those_of_the_formula_for_the_layer(self, layer, shape, expected):
        assert summarize_network(build_one_layer_network(layer, shape)).multiply_adds == expected

    @pytest.mark.parametrize(
        "layer",
        [
            layers.BatchNormalization(),
            layers.MaxPooling2D(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(),
            layers.Flatten(),
        ],
    )
    def test_layers_without_products_cost_nothing(self, layer):
        build_one_layer_network(layer, (4, 4, 3))
        assert count_multiply_adds(layer) == 0
        assert not has_uncounted_kernel(layer)

    def test_the_summary_names_layers_with_a_kernel_that_is_not_counted(self):
        network = keras.Sequential(
            [layers.Input((6, 4)), layers.Conv1D(3, 3), layers.GRU(2), layers.Dense(2)]
        )
        network.layers[0].trainable = False
        summary = summarize_network(network)
        assert [layer.has_uncounted_kernel for layer in summary.layers] == [True, True, False]
        assert (summary.uncounted_layers, summary.multiply_adds) == (["Conv1D", "GRU"], 4)
        assert format_summary(summary).endswith(
            "multiply-adds per image: 4 (convolutions and dense layers only;"
            " not counted: Conv1D, GRU)"
        )

    def test_the_count_is_unknown_if_a_side_of_the_input_is_unknown(self):
        layer = layers.Conv2DTranspose(2, 3)
        build_one_layer_network(layer, (None, 4, 1))
        assert count_multiply_adds(layer) is None
        assert not has_uncounted_kernel(layer)

    @settings(max_examples=15, deadline=None)
    @given(draws=st.data())
    def test_convolutions_cost_as_many_products_as_they_compute(self, draws):
        def draw_integer(largest: int) -> int:
            return draws.draw(st.integers(1, largest))

        shape, kernel = (
            (draw_integer(4) + 3, draw_integer(4) + 3, draw_integer(3)),
            (draw_integer(4), draw_integer(4)),
        )
        strides = draw_integer(2)
        transposed = layers.Conv2DTranspose(
            draw_integer(3), kernel, strides=strides, padding="valid", use_bias=False
        )
        products = count_products(transposed, shape)
        assert products > 0
        assert count_multiply_adds(transposed) == products
        plain = layers.Conv2D(
            draw_integer(3), kernel, strides=strides, padding="valid", use_bias=False
        )
        products = count_products(plain, shape)
        assert products > 0
        assert count_multiply_adds(plain) == products

    @pytest.mark.parametrize("name", registry.list_network_names())
    def test_a_saved_model_costs_as_much_as_its_network(self, name, tmp_path):
        network = registry.build_network(name, 48, 7, {})
        model = serving_model.build_serving_model(network, 48, Normalization.centered())
        serving_model.save_model(model, tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
        expected = summarize_network(network)
        assert expected.multiply_adds is not None
        assert expected.multiply_adds > 0
        assert summarize_network(loaded).multiply_adds == expected.multiply_adds
        assert summarize_network(loaded).parameters == expected.parameters
        assert expected.uncounted_layers == []


class Clock:
    """A clock that advances only while a `TimedModel` predicts.

    Attributes:
        now: Time in seconds.
        calls: Models in the order of their calls.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[TimedModel] = []


class TimedModel:
    """A model that advances a clock instead of predicting.

    Attributes:
        batch_shapes: Shapes of the batches in the order of the calls.
    """

    def __init__(self, clock: Clock, *image_seconds: float) -> None:
        """Set the seconds per image of each call; the last number applies to all later calls."""
        self.batch_shapes: list[tuple[int, ...]] = []
        self._clock = clock
        self._image_seconds = list(image_seconds)

    def predict_on_batch(self, batch: np.ndarray) -> None:
        last = len(self._image_seconds) == 1
        seconds = self._image_seconds[0] if last else self._image_seconds.pop(0)
        self._clock.now += seconds * len(batch)
        self._clock.calls.append(self)
        self.batch_shapes.append(batch.shape)


def make_images(rows: int, size: int = 4) -> np.ndarray:
    """Return black images of shape (rows, size, size)."""
    return np.zeros((rows, size, size), np.uint8)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    replacement = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: replacement.now)
    return replacement


class TestImagesPerSecond:
    def test_the_first_call_warms_up_and_the_fastest_turn_counts(self, clock):
        # A batch of 4 takes a turn: 400 s to warm up, then 4, 2, 1, 2, 4 s.
        model = TimedModel(clock, 100, 1, 0.5, 0.25, 0.5, 1)
        assert timing.measure_images_per_second([model], [make_images(4)], 4) == [4.0]
        assert model.batch_shapes == [(4, 4, 4, 1)] * 6

    def test_a_turn_repeats_until_half_a_second_has_passed(self, clock):
        model = TimedModel(clock, 1 / 16)
        assert timing.measure_images_per_second([model], [make_images(5)], 2) == [16.0]
        # Five turns of four batches each; no batch is smaller than the others.
        assert model.batch_shapes == [(2, 4, 4, 1)] * (1 + 5 * 4)

    def test_models_take_turns_with_images_of_their_own_size(self, clock):
        fast, slow = TimedModel(clock, 0.25), TimedModel(clock, 0.5)
        speeds = timing.measure_images_per_second(
            [fast, slow], [make_images(9), make_images(9, 6)], 4
        )
        assert speeds == [4.0, 2.0]
        assert clock.calls == [fast, slow] * 6
        assert set(slow.batch_shapes) == {(4, 6, 6, 1)}

    def test_a_batch_is_smaller_if_there_are_fewer_images(self, clock):
        model = TimedModel(clock, 1)
        assert timing.measure_images_per_second([model], [make_images(3)], 256) == [1.0]
        assert set(model.batch_shapes) == {(3, 4, 4, 1)}


def test_only_the_cores_that_the_process_may_use_count(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5, 9}, raising=False)
    assert timing.count_available_cores() == 3
