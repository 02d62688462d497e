from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf
from keras import layers

from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import RunError
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.analysis.layer_inspector import LayerInspector
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.networks import registry

SIZE = 12
NORMALIZATION = Normalization.centered()
PIXELS = np.random.default_rng(3).integers(0, 256, (4, SIZE, SIZE)).astype(np.uint8)
VALUES = NORMALIZATION.lookup_table()[PIXELS][..., None]


@pytest.fixture(autouse=True)
def seeded() -> None:
    keras.utils.set_random_seed(1)


@pytest.fixture
def bfloat16() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def loaded(network: keras.Model, folder: Path) -> keras.Model:
    """The model that a later job sees."""
    serving_model.save_model(
        serving_model.build_serving_model(network, SIZE, NORMALIZATION),
        folder / RunFile.MODEL,
    )
    return serving_model.load_model_from_bytes((folder / RunFile.MODEL).read_bytes(), "system_a")


def looked_into(network: keras.Model, size: int = SIZE) -> LayerInspector:
    return LayerInspector(serving_model.build_serving_model(network, size, NORMALIZATION))


def residual() -> keras.Model:
    """Two blocks, one layer in both, a sum that is no layer of its own, a valid convolution."""
    given = keras.Input((SIZE, SIZE, 1))
    shared = layers.ReLU(name="shared")
    first = shared(layers.Conv2D(4, 3, padding="same", name="first")(given))
    pooled = layers.AveragePooling2D(2, name="pool")(first)
    second = layers.BatchNormalization(name="norm")(
        layers.SeparableConv2D(4, 3, padding="same", name="second")(pooled)
    )
    summed = shared(second + pooled)
    flat = layers.Flatten(name="flatten")(layers.MaxPooling2D(2, name="end")(summed))
    return keras.Model(given, layers.Dense(3, name="logits")(flat))


class TestOutputs:
    def test_of_system_a_are_those_of_its_layers_one_after_the_other(self, tmp_path):
        inspection = LayerInspector(
            loaded(registry.build_network("system_a", SIZE, 3, {}), tmp_path)
        )
        names = ["convolution_1", "pool_1", "convolution_2", "pool_2", "flatten"]
        assert inspection.layer_names == (*names, "hidden", "logits")
        found = inspection.compute_layer_outputs(PIXELS, names)
        # The layers themselves, called by hand.
        network = serving_model.load_model_from_bytes(
            (tmp_path / RunFile.MODEL).read_bytes(), "system_a"
        ).get_layer("system_a")
        expected, value = [], VALUES
        for name in names:
            value = network.get_layer(name)(value)
            expected.append(keras.ops.convert_to_numpy(value))
        shapes = [(4, 12, 12, 16), (4, 6, 6, 16), (4, 6, 6, 16), (4, 3, 3, 16), (4, 144)]
        assert [one.shape for one in found] == shapes
        for one, other in zip(found, expected, strict=True):
            assert one.dtype == np.float32
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)

    def test_of_a_residual_network_with_a_layer_that_is_used_twice(self, tmp_path):
        inspection = LayerInspector(loaded(residual(), tmp_path))
        assert {"first", "pool", "norm", "shared", "end", "logits"} <= set(inspection.layer_names)
        pooled, norm, last = inspection.compute_layer_outputs(PIXELS, ["pool", "norm", "shared"])
        # Of a layer that is used twice, it is the second use.
        np.testing.assert_allclose(last, np.maximum(pooled + norm, 0), atol=1e-6)

    def test_of_one_layer(self):
        (found,) = looked_into(residual()).compute_layer_outputs(PIXELS[:1], ["logits"])
        assert found.shape == (1, 3)

    def test_computed_in_bfloat16_are_float32(self, bfloat16):
        inspection = looked_into(residual())
        for found in inspection.compute_layer_outputs(PIXELS, inspection.layer_names):
            assert found.dtype == np.float32
        found = inspection.compute_class_activation_maps(PIXELS, np.zeros(4, np.int32))
        assert found.dtype == np.float32
        assert np.isfinite(found).all()
        assert found.max() > 0


class TestChosen:
    def test_by_default_are_convolutions_and_poolings(self):
        assert looked_into(residual()).select_layers() == ["first", "pool", "second", "end"]
        system_a = looked_into(registry.build_network("system_a", SIZE, 3, {}))
        assert system_a.select_layers() == ["convolution_1", "pool_1", "convolution_2", "pool_2"]

    def test_of_many_are_eight_from_the_first_to_the_last(self):
        convolutions = [layers.Conv2D(2, 3, padding="same", name=f"c{i}") for i in range(15)]
        last = layers.GlobalAveragePooling2D()
        network = keras.Sequential([keras.Input((SIZE, SIZE, 1)), *convolutions, last])
        assert looked_into(network).select_layers() == [f"c{i}" for i in range(0, 15, 2)]

    def test_asked_for_stay_in_their_order_and_come_once(self):
        inspection = looked_into(residual())
        assert inspection.select_layers(["pool", "logits", "pool"]) == ["pool", "logits"]

    def test_a_layer_that_is_not_there(self):
        with pytest.raises(RunError) as caught:
            looked_into(registry.build_network("system_a", SIZE, 3, {})).select_layers(
                ["pool_1", "convolution3"]
            )
        message = str(caught.value)
        assert message.startswith("--layers: the network has no layer 'convolution3' ")
        assert "did you mean convolution_2?" in message
        assert "convolution_1, pool_1, convolution_2, pool_2, flatten, hidden, logits" in message


class TestEvidence:
    def test_is_the_last_of_the_size_of_the_last_convolution(self):
        assert (
            looked_into(registry.build_network("system_a", SIZE, 3, {})).cam_layer
            == "convolution_2"
        )
        assert looked_into(residual()).cam_layer == "shared"

    def test_needs_maps(self):
        network = keras.Sequential(
            [keras.Input((SIZE, SIZE, 1)), layers.Flatten(), layers.Dense(3, name="logits")]
        )
        inspection = looked_into(network)
        assert inspection.cam_layer is None
        assert inspection.select_layers() == []
        with pytest.raises(ValueError, match="no layer of the network returns feature maps"):
            inspection.compute_class_activation_maps(PIXELS, np.zeros(4, np.int32))


def by_hand(
    kernel: npt.NDArray[np.float64], dense: npt.NDArray[np.float64], label: int
) -> npt.NDArray[np.float64]:
    """Grad-CAM of a 1x1 convolution with ReLU, maps A = ReLU(kernel * x), flattened into logits.

    The derivative of a logit by A at a place is the weight of that place.
    """
    maps = np.maximum(VALUES * kernel, 0)
    weights = dense[:, label].reshape(SIZE, SIZE, -1).mean(axis=(0, 1))
    return np.maximum((maps * weights).sum(axis=-1), 0)


class OneWay(layers.Layer):
    """Gives what it takes, and has no derivative."""

    def call(self, maps: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def same(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], None]]:
            def slopes(_: tf.Tensor) -> None:
                pytest.fail("the layers before the maps are differentiated")

            return tf.identity(values), slopes

        return same(maps)


class TestClassActivation:
    def network(self, kernel: npt.NDArray[np.float64], *after: layers.Layer) -> keras.Model:
        maps = layers.Conv2D(len(kernel), 1, activation="relu", name="maps")
        made = keras.Sequential([keras.Input((SIZE, SIZE, 1)), maps, *after])
        maps.set_weights([kernel.reshape(1, 1, 1, -1), np.zeros(len(kernel))])
        return made

    def test_is_what_one_computes_by_hand(self):
        kernel = np.array([1.0, -2.0])
        dense = np.random.default_rng(2).normal(size=(SIZE * SIZE * 2, 3))
        network = self.network(kernel, layers.Flatten(), layers.Dense(3, name="logits"))
        network.layers[-1].set_weights([dense, np.ones(3)])
        labels = np.array([2, 0, 1, 2])
        found = looked_into(network).compute_class_activation_maps(PIXELS, labels)
        assert found.shape == (4, SIZE, SIZE)
        assert found.max() > 0
        for image, label in enumerate(labels):
            expected = by_hand(kernel, dense, label)[image]
            np.testing.assert_allclose(found[image], expected, rtol=1e-4, atol=1e-6)

    def test_after_global_average_pooling_is_the_class_activation_map(self):
        # Zhou et al. (2016): the maps weighted with the class's dense weights.
        kernel = np.array([1.0, -1.0, 0.5])
        dense = np.array([[1.0, -1.0], [2.0, 0.5], [-3.0, 1.0]])
        pool = layers.GlobalAveragePooling2D()
        network = self.network(kernel, pool, layers.Dense(2, name="logits"))
        network.layers[-1].set_weights([dense, np.zeros(2)])
        for label in (0, 1):
            found = looked_into(network).compute_class_activation_maps(PIXELS, np.full(4, label))
            maps = np.maximum(VALUES * kernel, 0)
            expected = np.maximum((maps * dense[:, label]).sum(axis=-1), 0) / SIZE**2
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)
            assert expected.max() > 0

    def test_of_an_image_does_not_depend_on_the_others(self):
        inspection = looked_into(residual())
        labels = np.array([0, 1, 2, 1])
        together = inspection.compute_class_activation_maps(PIXELS, labels)
        alone = [
            inspection.compute_class_activation_maps(PIXELS[i : i + 1], labels[i : i + 1])
            for i in range(4)
        ]
        np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("trainable", [True, False])
    def test_works_on_a_network_that_is_frozen(self, trainable):
        network = residual()
        network.trainable = trainable
        assert looked_into(network).compute_class_activation_maps(PIXELS, np.full(4, 1)).max() > 0

    def test_goes_back_no_further_than_to_the_maps(self):
        network = keras.Sequential(
            [
                keras.Input((SIZE, SIZE, 1)),
                layers.Conv2D(2, 3),
                OneWay(),
                layers.Conv2D(2, 3),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
        assert (
            looked_into(network).compute_class_activation_maps(PIXELS, np.array([0, 1, 2, 0])).max()
            > 0
        )

    def test_is_zero_where_every_unit_is_dead(self):
        dead = self.network(np.zeros(2), layers.Flatten(), layers.Dense(3, name="logits"))
        found = looked_into(dead).compute_class_activation_maps(PIXELS, np.array([0, 1, 2, 0]))
        assert (found == 0).all()

    def test_is_zero_where_all_speaks_against_the_class(self):
        pool = layers.GlobalAveragePooling2D()
        network = self.network(np.array([1.0]), pool, layers.Dense(2, name="logits"))
        network.layers[-1].set_weights([np.array([[-1.0, 1.0]]), np.zeros(2)])
        against, speaks_for = (
            looked_into(network).compute_class_activation_maps(PIXELS, np.full(4, label))
            for label in (0, 1)
        )
        assert (against == 0).all()
        assert speaks_for.max() > 0
