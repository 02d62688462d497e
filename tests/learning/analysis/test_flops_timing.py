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

layers = keras.layers


def around(layer, shape):
    """A model of one layer."""
    return keras.Sequential([layers.Input(shape), layer])


def counted(layer, shape):
    """The number of products in the outputs: where all is ones and nothing is cut off, their sum.

    A kernel that goes over a border of zeros multiplies there too, and cannot be counted so.
    """
    network = around(layer, shape)
    for variable in network.weights:
        variable.assign(np.ones(variable.shape, np.float32))
    return int(np.asarray(network(np.ones((1, *shape), np.float32)), np.float64).sum())


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
    def test_by_hand(self, layer, shape, expected):
        assert summarize_network(around(layer, shape)).multiply_adds == expected

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
    def test_others_count_nothing_and_are_not_left_out(self, layer):
        around(layer, (4, 4, 3))
        assert count_multiply_adds(layer) == 0
        assert not has_uncounted_kernel(layer)

    def test_what_has_a_kernel_and_counts_nothing_is_named(self):
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

    def test_a_size_that_is_not_known(self):
        layer = layers.Conv2DTranspose(2, 3)
        around(layer, (None, 4, 1))
        assert count_multiply_adds(layer) is None
        assert not has_uncounted_kernel(layer)

    @settings(max_examples=15, deadline=None)
    @given(data=st.data())
    def test_against_counting(self, data):
        def number(most):
            return data.draw(st.integers(1, most))

        shape, kernel = (number(4) + 3, number(4) + 3, number(3)), (number(4), number(4))
        strides = number(2)
        transposed = layers.Conv2DTranspose(
            number(3), kernel, strides=strides, padding="valid", use_bias=False
        )
        assert counted(transposed, shape) == count_multiply_adds(transposed) > 0
        plain = layers.Conv2D(number(3), kernel, strides=strides, padding="valid", use_bias=False)
        assert counted(plain, shape) == count_multiply_adds(plain) > 0

    @pytest.mark.parametrize("name", registry.list_network_names())
    def test_a_model_that_was_saved_costs_what_its_network_does(self, name, tmp_path):
        network = registry.build_network(name, 48, 7, {})
        model = serving_model.build_serving_model(network, 48, Normalization.centered())
        serving_model.save_model(model, tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
        expected = summarize_network(network)
        assert expected.multiply_adds > 0
        assert summarize_network(loaded).multiply_adds == expected.multiply_adds
        assert summarize_network(loaded).parameters == expected.parameters
        assert expected.uncounted_layers == []


class Clocked:
    """Stands where a model stands, on a clock of its own: each image takes the next of `costs`."""

    def __init__(self, clock, *costs):
        self.clock, self.costs, self.seen = clock, list(costs), []

    def predict_on_batch(self, batch):
        seconds = self.costs.pop(0) if len(self.costs) > 1 else self.costs[0]
        self.clock.now += seconds * len(batch)
        self.clock.calls.append(self)
        self.seen.append(batch.shape)


class Clock:
    """The time, which passes only while a `Clocked` works."""

    def __init__(self):
        self.now, self.calls = 0.0, []


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(time, "perf_counter", lambda: made.now)
    return made


class TestImagesASecond:
    def pixels(self, rows, size=4):
        return np.zeros((rows, size, size), np.uint8)

    def test_the_first_pass_warms_up_and_the_best_turn_counts(self, clock):
        # A batch of 4 takes a turn: 400 s to warm up, then 4, 2, 1, 2, 4 s.
        model = Clocked(clock, 100, 1, 0.5, 0.25, 0.5, 1)
        assert timing.measure_images_per_second([model], [self.pixels(4)], 4) == [4.0]
        assert model.seen == [(4, 4, 4, 1)] * 6

    def test_a_turn_goes_on_for_half_a_second(self, clock):
        model = Clocked(clock, 1 / 16)
        assert timing.measure_images_per_second([model], [self.pixels(5)], 2) == [16.0]
        # Five turns of four batches each; no batch is smaller than the others.
        assert model.seen == [(2, 4, 4, 1)] * (1 + 5 * 4)

    def test_they_take_turns_each_with_images_of_its_size(self, clock):
        fast, slow = Clocked(clock, 0.25), Clocked(clock, 0.5)
        found = timing.measure_images_per_second(
            [fast, slow], [self.pixels(9), self.pixels(9, 6)], 4
        )
        assert found == [4.0, 2.0]
        assert clock.calls == [fast, slow] * 6
        assert set(slow.seen) == {(4, 6, 6, 1)}

    def test_fewer_images_than_a_batch(self, clock):
        model = Clocked(clock, 1)
        assert timing.measure_images_per_second([model], [self.pixels(3)], 256) == [1.0]
        assert set(model.seen) == {(3, 4, 4, 1)}


def test_there_is_a_core():
    assert timing.count_available_cores() >= 1
