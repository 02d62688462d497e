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
def set_seed() -> None:
    keras.utils.set_random_seed(1)


@pytest.fixture
def bfloat16() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    yield
    keras.config.set_dtype_policy(before)


def save_and_load(network: keras.Model, folder: Path) -> keras.Model:
    """Return the model that a later job loads."""
    serving_model.save_model(
        serving_model.build_serving_model(network, SIZE, NORMALIZATION),
        folder / RunFile.MODEL,
    )
    return serving_model.load_model_from_bytes((folder / RunFile.MODEL).read_bytes(), "system_a")


def inspect_network(network: keras.Model, size: int = SIZE) -> LayerInspector:
    """Return an inspector of the serving model of a network."""
    return LayerInspector(serving_model.build_serving_model(network, size, NORMALIZATION))


def build_residual_network() -> keras.Model:
    """Return a network of two blocks that share a layer, with a sum that is no layer."""
    images = keras.Input((SIZE, SIZE, 1))
    shared = layers.ReLU(name="shared")
    first = shared(layers.Conv2D(4, 3, padding="same", name="first")(images))
    pooled = layers.AveragePooling2D(2, name="pool")(first)
    second = layers.BatchNormalization(name="norm")(
        layers.SeparableConv2D(4, 3, padding="same", name="second")(pooled)
    )
    summed = shared(second + pooled)
    flat = layers.Flatten(name="flatten")(layers.MaxPooling2D(2, name="end")(summed))
    return keras.Model(images, layers.Dense(3, name="logits")(flat))


class TestOutputs:
    def test_outputs_of_system_a_equal_those_of_its_layers_called_in_sequence(self, tmp_path):
        inspection = LayerInspector(
            save_and_load(registry.build_network("system_a", SIZE, 3, {}), tmp_path)
        )
        names = ["convolution_1", "pool_1", "convolution_2", "pool_2", "flatten"]
        assert inspection.layer_names == (*names, "hidden", "logits")
        outputs = inspection.compute_layer_outputs(PIXELS, names)
        # The layers, called one after the other.
        network = serving_model.load_model_from_bytes(
            (tmp_path / RunFile.MODEL).read_bytes(), "system_a"
        ).get_layer("system_a")
        expected, activation = [], VALUES
        for name in names:
            activation = network.get_layer(name)(activation)
            expected.append(keras.ops.convert_to_numpy(activation))
        shapes = [(4, 12, 12, 16), (4, 6, 6, 16), (4, 6, 6, 16), (4, 3, 3, 16), (4, 144)]
        assert [output.shape for output in outputs] == shapes
        for output, activation in zip(outputs, expected, strict=True):
            assert output.dtype == np.float32
            np.testing.assert_allclose(output, activation, rtol=1e-5, atol=1e-6)

    def test_the_output_of_a_layer_that_is_used_twice_is_that_of_its_last_use(self, tmp_path):
        inspection = LayerInspector(save_and_load(build_residual_network(), tmp_path))
        assert {"first", "pool", "norm", "shared", "end", "logits"} <= set(inspection.layer_names)
        pooled, norm, last = inspection.compute_layer_outputs(PIXELS, ["pool", "norm", "shared"])
        # The last use of `shared` is the activation of the sum.
        np.testing.assert_allclose(last, np.maximum(pooled + norm, 0), atol=1e-6)

    def test_one_layer_has_one_output(self):
        (logits,) = inspect_network(build_residual_network()).compute_layer_outputs(
            PIXELS[:1], ["logits"]
        )
        assert logits.shape == (1, 3)

    def test_outputs_and_maps_of_a_bfloat16_network_are_float32(self, bfloat16):
        inspection = inspect_network(build_residual_network())
        for output in inspection.compute_layer_outputs(PIXELS, inspection.layer_names):
            assert output.dtype == np.float32
        cams = inspection.compute_class_activation_maps(PIXELS, np.zeros(4, np.int32))
        assert cams.dtype == np.float32
        assert np.isfinite(cams).all()
        assert cams.max() > 0


class TestSelectedLayers:
    def test_convolutions_and_poolings_are_the_default(self):
        assert inspect_network(build_residual_network()).select_layers() == [
            "first",
            "pool",
            "second",
            "end",
        ]
        system_a = inspect_network(registry.build_network("system_a", SIZE, 3, {}))
        assert system_a.select_layers() == ["convolution_1", "pool_1", "convolution_2", "pool_2"]

    def test_eight_layers_are_spread_over_a_deep_network(self):
        convolutions = [layers.Conv2D(2, 3, padding="same", name=f"c{i}") for i in range(15)]
        last = layers.GlobalAveragePooling2D()
        network = keras.Sequential([keras.Input((SIZE, SIZE, 1)), *convolutions, last])
        assert inspect_network(network).select_layers() == [f"c{i}" for i in range(0, 15, 2)]

    def test_named_layers_keep_their_order_without_duplicates(self):
        inspection = inspect_network(build_residual_network())
        assert inspection.select_layers(["pool", "logits", "pool"]) == ["pool", "logits"]

    def test_an_unknown_layer_is_an_error_that_suggests_a_name(self):
        with pytest.raises(RunError) as caught:
            inspect_network(registry.build_network("system_a", SIZE, 3, {})).select_layers(
                ["pool_1", "convolution3"]
            )
        message = str(caught.value)
        assert message.startswith("--layers: the network has no layer 'convolution3' ")
        assert "did you mean convolution_2?" in message
        assert "convolution_1, pool_1, convolution_2, pool_2, flatten, hidden, logits" in message


class TestCamLayer:
    def test_it_is_the_last_layer_with_the_size_of_the_last_convolution(self):
        assert (
            inspect_network(registry.build_network("system_a", SIZE, 3, {})).cam_layer
            == "convolution_2"
        )
        assert inspect_network(build_residual_network()).cam_layer == "shared"

    def test_a_network_without_feature_maps_has_none(self):
        network = keras.Sequential(
            [keras.Input((SIZE, SIZE, 1)), layers.Flatten(), layers.Dense(3, name="logits")]
        )
        inspection = inspect_network(network)
        assert inspection.cam_layer is None
        assert inspection.select_layers() == []
        with pytest.raises(ValueError, match="no layer of the network returns feature maps"):
            inspection.compute_class_activation_maps(PIXELS, np.zeros(4, np.int32))


def compute_grad_cam(
    kernel: npt.NDArray[np.float64], dense: npt.NDArray[np.float64], label: int
) -> npt.NDArray[np.float64]:
    """Return the Grad-CAM of a 1x1 convolution with ReLU, whose maps are flattened into logits.

    The maps are A = ReLU(kernel * x). The derivative of a logit by A at a position is the dense
    weight of that position.
    """
    maps = np.maximum(VALUES * kernel, 0)
    weights = dense[:, label].reshape(SIZE, SIZE, -1).mean(axis=(0, 1))
    return np.maximum((maps * weights).sum(axis=-1), 0)


class IdentityWithoutGradient(layers.Layer):
    """Identity that fails the test if it is differentiated."""

    def call(self, maps: tf.Tensor) -> tf.Tensor:
        @tf.custom_gradient
        def identity(values: tf.Tensor) -> tuple[tf.Tensor, Callable[[tf.Tensor], None]]:
            def fail_if_differentiated(_: tf.Tensor) -> None:
                pytest.fail("the layers before the maps are differentiated")

            return tf.identity(values), fail_if_differentiated

        return identity(maps)


def build_network(kernel: npt.NDArray[np.float64], *following: layers.Layer) -> keras.Model:
    """Return a network of a 1x1 convolution with this kernel, a ReLU and the following layers."""
    maps = layers.Conv2D(len(kernel), 1, activation="relu", name="maps")
    network = keras.Sequential([keras.Input((SIZE, SIZE, 1)), maps, *following])
    maps.set_weights([kernel.reshape(1, 1, 1, -1), np.zeros(len(kernel))])
    return network


class TestClassActivationMaps:
    def test_maps_equal_grad_cam_computed_with_numpy(self):
        kernel = np.array([1.0, -2.0])
        dense = np.random.default_rng(2).normal(size=(SIZE * SIZE * 2, 3))
        network = build_network(kernel, layers.Flatten(), layers.Dense(3, name="logits"))
        network.layers[-1].set_weights([dense, np.ones(3)])
        labels = np.array([2, 0, 1, 2])
        cams = inspect_network(network).compute_class_activation_maps(PIXELS, labels)
        assert cams.shape == (4, SIZE, SIZE)
        assert cams.max() > 0
        for image, label in enumerate(labels):
            expected = compute_grad_cam(kernel, dense, label)[image]
            np.testing.assert_allclose(cams[image], expected, rtol=1e-4, atol=1e-6)

    def test_maps_before_global_average_pooling_are_weighted_with_the_dense_weights(self):
        # Zhou et al. (2016): the maps weighted with the class's dense weights.
        kernel = np.array([1.0, -1.0, 0.5])
        dense = np.array([[1.0, -1.0], [2.0, 0.5], [-3.0, 1.0]])
        pool = layers.GlobalAveragePooling2D()
        network = build_network(kernel, pool, layers.Dense(2, name="logits"))
        network.layers[-1].set_weights([dense, np.zeros(2)])
        for label in (0, 1):
            cams = inspect_network(network).compute_class_activation_maps(PIXELS, np.full(4, label))
            maps = np.maximum(VALUES * kernel, 0)
            expected = np.maximum((maps * dense[:, label]).sum(axis=-1), 0) / SIZE**2
            np.testing.assert_allclose(cams, expected, rtol=1e-4, atol=1e-7)
            assert expected.max() > 0

    def test_the_map_of_an_image_does_not_depend_on_the_other_images(self):
        inspection = inspect_network(build_residual_network())
        labels = np.array([0, 1, 2, 1])
        together = inspection.compute_class_activation_maps(PIXELS, labels)
        alone = [
            inspection.compute_class_activation_maps(PIXELS[i : i + 1], labels[i : i + 1])
            for i in range(4)
        ]
        np.testing.assert_allclose(together, np.concatenate(alone), rtol=1e-4, atol=1e-6)

    @pytest.mark.parametrize("trainable", [True, False])
    def test_a_frozen_network_has_maps_as_well(self, trainable):
        network = build_residual_network()
        network.trainable = trainable
        assert (
            inspect_network(network).compute_class_activation_maps(PIXELS, np.full(4, 1)).max() > 0
        )

    def test_layers_before_the_maps_are_not_differentiated(self):
        network = keras.Sequential(
            [
                keras.Input((SIZE, SIZE, 1)),
                layers.Conv2D(2, 3),
                IdentityWithoutGradient(),
                layers.Conv2D(2, 3),
                layers.Flatten(),
                layers.Dense(3),
            ]
        )
        assert (
            inspect_network(network)
            .compute_class_activation_maps(PIXELS, np.array([0, 1, 2, 0]))
            .max()
            > 0
        )

    def test_maps_are_zero_if_all_units_are_dead(self):
        dead = build_network(np.zeros(2), layers.Flatten(), layers.Dense(3, name="logits"))
        cams = inspect_network(dead).compute_class_activation_maps(PIXELS, np.array([0, 1, 2, 0]))
        assert (cams == 0).all()

    def test_maps_are_zero_if_all_features_count_against_the_class(self):
        pool = layers.GlobalAveragePooling2D()
        network = build_network(np.array([1.0]), pool, layers.Dense(2, name="logits"))
        network.layers[-1].set_weights([np.array([[-1.0, 1.0]]), np.zeros(2)])
        cams_against, cams_for = (
            inspect_network(network).compute_class_activation_maps(PIXELS, np.full(4, label))
            for label in (0, 1)
        )
        assert (cams_against == 0).all()
        assert cams_for.max() > 0
