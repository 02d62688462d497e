import os
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.networks.mirrored_layers import (
    MirroredBatchNormalization,
    MirroredConv2D,
)
from fer_pipeline.learning.training import precision
from fer_pipeline.learning.training.trainer import enable_determinism
from tests.helpers.networks import get_build_error

# Each network at the size and for the number of classes of its original.
ORIGINALS = {
    "system_a": (28, 7),
    "system_b": (48, 7),
    "system_c": (48, 7),
    "system_d": (48, 7),
    "system_e": (48, 5),
    "mini_xception": (64, 7),
    "compact": (48, 7),
    "mirrored": (48, 7),
}
# The smallest images that a network accepts, for networks with such a limit.
SMALLEST = {
    "system_b": 16,
    "system_c": 16,
    "system_d": 18,
    "system_e": 31,
    "mini_xception": 5,
    "compact": 8,
    "mirrored": 8,
}


@pytest.fixture(autouse=True)
def seed() -> None:
    enable_determinism(0)


@pytest.fixture(scope="module")
def originals():
    enable_determinism(0)
    return {
        name: registry.build_network(name, *original, {}) for name, original in ORIGINALS.items()
    }


@pytest.fixture(scope="module")
def large():
    enable_determinism(0)
    return registry.build_network("system_a", 28, 7, {"hidden": 3136})


class TestSystemA:
    def test_numbers_of_parameters(self, large):
        # Its listing says 64, its text 3136.
        assert registry.build_network("system_a", 28, 7, {}).count_params() == 57_527
        assert registry.build_network("system_a", 28, 7, {"hidden": 64}).count_params() == 57_527
        assert large.count_params() == 2_490_551

    def test_shapes_of_layers_and_variables(self):
        network = registry.build_network("system_a", 28, 7, {})
        shapes = [tuple(layer.output.shape[1:]) for layer in network.layers]
        assert shapes == [(28, 28, 16), (14, 14, 16), (14, 14, 16), (7, 7, 16), (784,), (64,), (7,)]
        assert [tuple(v.shape) for v in network.trainable_variables] == [
            *((5, 5, 1, 16), (16,)),
            *((5, 5, 16, 16), (16,)),
            *((784, 64), (64,)),
            *((64, 7), (7,)),
        ]
        assert len(network.variables) == 8  # nothing else, such as a moving mean

    def test_biases_are_zero_in_the_first_layer_and_one_in_the_others(self, large):
        first, *others = (v.numpy() for v in large.trainable_variables[1::2])
        assert (first == 0).all()
        assert len(others) == 3
        assert all((bias == 1).all() for bias in others)

    def test_weights_are_normal_and_truncated_at_two_deviations(self, large):
        for weights in (v.numpy() for v in large.trainable_variables[0::2]):
            assert np.abs(weights).max() <= 0.2
            # A normal distribution that is cut at two deviations keeps 0.8796 of its deviation.
            few = weights.size < 1000
            assert weights.std() == pytest.approx(0.08796, rel=0.1 if few else 0.02)
            assert abs(weights.mean()) < 5 * 0.088 / np.sqrt(weights.size)
            assert len(np.unique(weights)) > 0.9 * min(weights.size, 10_000)

    def test_no_two_layers_start_with_the_same_weights(self, large):
        beginnings = [v.numpy().ravel()[:100] for v in large.trainable_variables[0::2]]
        for index, weights in enumerate(beginnings):
            for previous_weights in beginnings[:index]:
                assert not np.isin(weights, previous_weights).any()

    def test_the_seed_determines_the_initial_weights(self):
        def initialize_weights(seed: int) -> npt.NDArray[np.float32]:
            enable_determinism(seed)
            network = registry.build_network("system_a", 28, 7, {})
            return np.concatenate([w.ravel() for w in network.get_weights()])

        np.testing.assert_array_equal(initialize_weights(3), initialize_weights(3))
        assert not np.array_equal(initialize_weights(3), initialize_weights(4))

    @pytest.mark.parametrize(("size", "classes"), [(28, 7), (48, 7), (8, 5), (29, 3), (48, 2)])
    def test_it_returns_logits_for_any_size_and_number_of_classes(self, size, classes):
        network = registry.build_network("system_a", size, classes, {})
        images = np.random.default_rng(0).uniform(-1, 1, (3, size, size, 1)).astype(np.float32)
        logits = network(images).numpy()
        assert logits.shape == (3, classes)
        assert logits.dtype == np.float32
        assert np.isfinite(logits).all()
        # Logits and no probabilities: they do not add up to one.
        assert not np.allclose(logits.sum(axis=1), 1)
        assert len(np.unique(logits, axis=0)) == 3

    def test_parameters_and_outputs_for_48x48_pixels(self):
        # Two poolings leave 12x12x16.
        network = registry.build_network("system_a", 48, 7, {})
        assert network.count_params() == 416 + 6_416 + (2_304 + 1) * 64 + 65 * 7
        assert network.output_shape == (None, 7)


def list_layer_shapes(network: keras.Model) -> list[tuple[str, tuple[int, ...]]]:
    """Return the type and the output shape of the layers, without inputs and batch dimension."""
    return [
        (type(layer).__name__, tuple(layer.output.shape[1:]))
        for layer in network.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]


def make_block(
    convolution: tuple[int, ...], pool: tuple[int, ...]
) -> list[tuple[str, tuple[int, ...]]]:
    """Return the layers of a block of systems B and C."""
    normal = [(kind, convolution) for kind in ("Conv2D", "BatchNormalization", "ReLU")]
    return [*normal, ("MaxPooling2D", pool), ("Dropout", pool)]


FOUR_BLOCKS = [
    *make_block((48, 48, 64), (24, 24, 64)),
    *make_block((24, 24, 128), (12, 12, 128)),
    *make_block((12, 12, 512), (6, 6, 512)),
    *make_block((6, 6, 512), (3, 3, 512)),
    ("Flatten", (4608,)),
]


def list_convolutions(network: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)]


class TestOriginals:
    @pytest.mark.parametrize(
        ("name", "total", "not_trainable"),
        [
            ("system_a", 57_527, 0),
            ("system_b", 3_192_839, 2_432),
            ("system_c", 4_478_727, 3_968),
            ("system_d", 5_905_863, 3_712),
            ("system_e", 1_174_021, 8_576),
            ("mini_xception", 58_423, 1_472),
            ("compact", 991_431, 1_728),
            ("mirrored", 548_951, 1_040),
        ],
    )
    def test_numbers_of_parameters(self, originals, name, total, not_trainable):
        network = originals[name]
        assert network.count_params() == total
        assert sum(v.numpy().size for v in network.non_trainable_weights) == not_trainable

    def test_each_network_has_an_original_in_these_tests(self):
        assert registry.list_network_names() == sorted(ORIGINALS)

    @pytest.mark.parametrize("name", ORIGINALS)
    def test_names_of_weights_do_not_depend_on_networks_built_before(self, originals, name):
        again = registry.build_network(name, *ORIGINALS[name], {})
        assert [v.path for v in again.weights] == [v.path for v in originals[name].weights]
        assert again.name == name

    def test_layers_of_system_b(self, originals):
        network = originals["system_b"]
        assert list_layer_shapes(network) == [*FOUR_BLOCKS, ("Dense", (7,))]
        assert [layer.kernel_size for layer in list_convolutions(network)] == [
            *((3, 3), (5, 5)),
            *((3, 3), (3, 3)),
        ]
        assert list_dropout_rates(network) == [0.25] * 4

    def test_layers_of_system_c(self, originals):
        network = originals["system_c"]
        head = [
            (kind, (units,))
            for units in (256, 512)
            for kind in ("Dense", "BatchNormalization", "ReLU", "Dropout")
        ]
        assert list_layer_shapes(network) == [*FOUR_BLOCKS, *head, ("Dense", (7,))]
        assert list_dropout_rates(network) == [0.25] * 6

    @pytest.mark.parametrize("name", ["system_b", "system_c"])
    def test_dropout_is_an_option(self, name):
        assert set(list_dropout_rates(registry.build_network(name, 16, 7, {"dropout": 0.5}))) == {
            0.5
        }

    def test_layers_of_system_d(self, originals):
        network = originals["system_d"]
        shapes = [(46, 46, 64), (23, 23, 128), (11, 11, 256), (5, 5, 512)]
        ends = [(23, 23, 64), (11, 11, 128), (5, 5, 256), (2, 2, 512)]
        expected: list[tuple[str, tuple[int, ...]]] = []
        for shape, end in zip(shapes, ends, strict=True):
            expected += [("Conv2D", shape), ("BatchNormalization", shape)] * 2
            expected += [("MaxPooling2D", end), ("Dropout", end)]
        del expected[1]  # the first convolution alone has no BatchNorm
        expected.append(("Flatten", (2048,)))
        for units in (512, 256, 128):
            expected += [("Dense", (units,)), ("Dropout", (units,))]
        assert list_layer_shapes(network) == [*expected, ("Dense", (7,))]
        assert [layer.padding for layer in list_convolutions(network)] == ["valid", *["same"] * 7]
        assert list_dropout_rates(network) == [0.5, 0.5, 0.5, 0.5, 0.4, 0.4, 0.5]
        relus = [layer.activation is keras.activations.relu for layer in network.layers[:1]]
        dense = [layer for layer in network.layers if isinstance(layer, keras.layers.Dense)]
        relus += [layer.activation is keras.activations.relu for layer in dense]
        assert relus == [True, True, True, True, False]

    def test_layers_of_system_e(self, originals):
        network = originals["system_e"]
        assert all(layer.use_bias for layer in list_convolutions(network))
        assert list_layer_shapes(network)[:5] == [
            ("ZeroPadding2D", (54, 54, 1)),
            ("Conv2D", (24, 24, 64)),
            ("BatchNormalization", (24, 24, 64)),
            ("ReLU", (24, 24, 64)),
            ("MaxPooling2D", (12, 12, 64)),
        ]
        assert list_layer_shapes(network)[-3:] == [
            ("AveragePooling2D", (1, 1, 512)),
            ("Flatten", (512,)),
            ("Dense", (5,)),
        ]
        counted = [kind for kind, _ in list_layer_shapes(network)]
        assert counted.count("Add") == 6
        assert counted.count("Conv2D") == 1 + 2 * (4 + 3 + 3)
        assert counted.count("MaxPooling2D") == 1 + 2 * 2
        # The pooling of a projection is between its convolution and its BatchNorm.
        for name in ("stage_1_projection_a", "stage_2_projection_shortcut"):
            pool = network.get_layer(f"{name}_pool")
            assert pool.input is network.get_layer(name).output
            assert network.get_layer(f"{name}_batch_norm").input is pool.output
        # An identity block adds its input.
        block_input = network.get_layer("stage_1_projection_relu").output
        added = network.get_layer("stage_1_identity_1_sum").input
        assert any(tensor is block_input for tensor in added)

    def test_system_e_has_he_normal_weights(self, originals):
        kernel = originals["system_e"].get_layer("stage_2_identity_1_b").kernel.numpy()
        assert kernel.std() == pytest.approx(np.sqrt(2 / (3 * 3 * 128)), rel=0.02)

    def test_layers_of_mini_xception(self, originals):
        network = originals["mini_xception"]
        biased = [
            layer.name
            for layer in network.layers
            if isinstance(layer, keras.layers.Conv2D | keras.layers.SeparableConv2D)
            if layer.use_bias
        ]
        assert biased == ["class_maps"]
        sums = [shape for kind, shape in list_layer_shapes(network) if kind == "Add"]
        assert sums == [(30, 30, 16), (15, 15, 32), (8, 8, 64), (4, 4, 128)]
        assert list_layer_shapes(network)[-2:] == [
            ("Conv2D", (4, 4, 7)),
            ("GlobalAveragePooling2D", (7,)),
        ]
        # Two separable convolutions a module, ReLU between them and none at its end.
        module = [layer.name for layer in network.layers if layer.name.startswith("module_3")]
        assert sorted(module) == sorted(
            [
                *("module_3_a", "module_3_a_batch_norm", "module_3_a_relu"),
                *("module_3_b", "module_3_b_batch_norm", "module_3_pool"),
                *("module_3_shortcut_stride", "module_3_shortcut"),
                *("module_3_shortcut_batch_norm", "module_3_sum"),
            ]
        )

    def test_layers_of_compact(self, originals):
        network = originals["compact"]
        assert [tuple(layer.output.shape[1:]) for layer in list_convolutions(network)] == [
            (48, 48, 32),
            *[(24, 24, 64)] * 2,
            *[(12, 12, 128)] * 2,
            *[(6, 6, 224)] * 2,
        ]
        assert {layer.kernel_size for layer in list_convolutions(network)} == {(3, 3)}
        assert not any(layer.use_bias for layer in list_convolutions(network))
        # A shortcut leads around the second convolution of a stage.
        for stage in (1, 2, 3):
            shortcut = network.get_layer(f"stage_{stage}_b").input
            added = network.get_layer(f"stage_{stage}_sum").input
            assert any(tensor is shortcut for tensor in added)
        assert list_dropout_rates(network) == [0.3]
        assert list_layer_shapes(network)[-3:] == [
            ("GlobalAveragePooling2D", (224,)),
            ("Dropout", (224,)),
            ("Dense", (7,)),
        ]

    @pytest.mark.parametrize("name", ["compact", "mirrored"])
    def test_compact_and_mirrored_cost_at_most_1e6_parameters_and_1e8_multiply_adds(
        self, originals, name
    ):
        network = originals[name]
        multiplied = sum(
            np.prod(layer.kernel.shape) * layer.output.shape[1] * layer.output.shape[2]
            for layer in list_convolutions(network)
        )
        assert network.count_params() <= 1_000_000
        dense = network.get_layer("logits").kernel.numpy().size
        assert 80e6 < multiplied + dense <= 100e6

    def test_options_of_compact(self):
        network = registry.build_network(
            "compact", 28, 5, {"stem": 4, "stages": [6, 8], "dropout": 0.5}
        )
        filters = [layer.filters for layer in list_convolutions(network)]
        assert (filters, list_dropout_rates(network)) == ([4, 6, 6, 8, 8], [0.5])
        assert network.output_shape == (None, 5)

    @pytest.mark.parametrize("name", ["compact", "mirrored"])
    def test_logits_are_float32_with_mixed_precision(self, name):
        with precision.use_precision("mixed_bfloat16"):
            network = registry.build_network(name, 48, 7, {})
        assert network.get_layer("stage_1_a").compute_dtype == "bfloat16"
        assert network.output.dtype == "float32"

    @pytest.mark.parametrize(
        "name", ["system_b", "system_c", "system_d", "mini_xception", "compact", "mirrored"]
    )
    def test_networks_accept_28x28_pixels(self, name):
        assert registry.build_network(name, 28, 7, {}).output_shape == (None, 7)

    @pytest.mark.parametrize("name", ORIGINALS)
    def test_each_network_returns_finite_logits(self, name):
        network = registry.build_network(name, 48, 3, {})
        images = np.random.default_rng(0).uniform(-1, 1, (3, 48, 48, 1)).astype(np.float32)
        logits = network(images, training=False).numpy()
        assert logits.shape == (3, 3)
        assert logits.dtype == np.float32
        assert np.isfinite(logits).all()
        assert not np.allclose(logits.sum(axis=1), 1)
        assert len(np.unique(logits, axis=0)) == 3


def randomize_weights(network: Any, seed: int = 0) -> Any:
    """Assign random values to all weights of a network or layer, and return it."""
    random = np.random.default_rng(seed)
    for variable in network.weights:
        if variable.path.endswith("variance"):
            values = random.uniform(0.5, 1.5, variable.shape)
        else:
            values = random.normal(0, 1.4 / np.prod(variable.shape[:-1]) ** 0.5, variable.shape)
        variable.assign(values.astype(np.float32))
    return network


def make_images(*shape: int, seed: int = 0) -> npt.NDArray[np.float32]:
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


class TestMirrored:
    @pytest.mark.parametrize("size", [8, 48])
    @pytest.mark.parametrize("training", [False, True])
    def test_a_face_and_its_mirror_image_have_equal_logits(self, size, training):
        network = randomize_weights(registry.build_network("mirrored", size, 7, {"dropout": 0}))
        faces = make_images(4, size, size, 1)
        # Before a training step changes the moving means.
        ahead, mirrored = (
            np.asarray(network(images, training=training)) for images in (faces, faces[:, :, ::-1])
        )
        np.testing.assert_allclose(ahead, mirrored, atol=1e-4 * np.abs(ahead).max())
        assert np.ptp(ahead, axis=0).min() > 1e-2
        # An upside-down face has other logits.
        upside_down = np.asarray(network(faces[:, ::-1], training=training))
        assert np.abs(upside_down - ahead).max() > 1e-2

    def test_compact_distinguishes_a_face_from_its_mirror_image(self):
        network = randomize_weights(registry.build_network("compact", 48, 7, {}))
        faces = make_images(4, 48, 48, 1)
        assert np.abs(network(faces) - network(faces[:, :, ::-1])).max() > 1e-2

    def test_convolution_of_a_mirror_image_is_mirrored_with_swapped_halves(self):
        maps = make_images(2, 6, 6, 8)
        layer = MirroredConv2D(10)
        output, of_mirrored = layer(maps), layer(np.roll(maps[:, :, ::-1], 4, axis=3))
        expected = np.roll(np.asarray(output)[:, :, ::-1], 5, axis=3)
        np.testing.assert_allclose(of_mirrored, expected, atol=1e-5)
        assert layer.count_params() == 3 * 3 * 8 * 5

    @pytest.mark.parametrize("training", [True, False])
    def test_normalization_equals_that_of_keras_over_both_halves(self, training):
        maps = make_images(4, 6, 6, 8) * 3 + 1
        mirrored, reference = MirroredBatchNormalization(), keras.layers.BatchNormalization()
        # The halves as two images of half as many channels.
        halves = np.concatenate([maps[..., :4], maps[..., 4:]])
        for layer, inputs in ((mirrored, maps), (reference, halves)):
            layer.build(inputs.shape)
            randomize_weights(layer)
        output = mirrored(maps, training=training)
        expected = reference(halves, training=training)
        joined = np.concatenate([output[..., :4], output[..., 4:]])
        np.testing.assert_allclose(joined, expected, atol=1e-5)
        for weight, expected_weight in zip(mirrored.weights, reference.weights, strict=True):
            np.testing.assert_allclose(weight, expected_weight, atol=1e-5)

    def test_a_saved_network_is_loaded_in_another_process(self, tmp_path):
        network = randomize_weights(
            registry.build_network("mirrored", 16, 3, {"stem": 4, "stages": [6, 8]})
        )
        network.save(tmp_path / "network.keras")
        np.save(tmp_path / "images.npy", make_images(2, 16, 16, 1))
        script = (
            "import sys, keras, numpy as np\n"
            "from fer_pipeline.learning.networks import registry\n"
            "registry.import_network_module('mirrored')\n"
            "network = keras.models.load_model(sys.argv[1] + '/network.keras')\n"
            "logits = network(np.load(sys.argv[1] + '/images.npy'), training=False)\n"
            "np.save(sys.argv[1] + '/logits.npy', np.asarray(logits))\n"
        )
        subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
        expected = network(make_images(2, 16, 16, 1), training=False)
        np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), expected, atol=1e-5)

    @pytest.mark.parametrize("options", [{"stem": 5}, {"stages": [6, 7]}])
    def test_odd_numbers_of_filters_are_refused(self, options):
        message = get_build_error("mirrored", options)
        assert "filters come in two halves: expected an even number, got " in message


def list_dropout_rates(network: keras.Model) -> list[float]:
    return [layer.rate for layer in network.layers if isinstance(layer, keras.layers.Dropout)]


# Runs in this process on TensorFlow, and in another one on NumPy.
LOGITS = """
import numpy as np
from fer_pipeline.learning.networks import registry

def compute_logits(name, size, classes):
    network = registry.build_network(name, size, classes, {})
    random = np.random.default_rng(size)
    for variable in network.weights:
        # Moving means and variances other than 0 and 1: BatchNorm has to use them.
        if variable.path.endswith("variance"):
            values = random.uniform(0.5, 1.5, variable.shape)
        else:
            values = random.normal(0, 1.4 / np.prod(variable.shape[:-1]) ** 0.5, variable.shape)
        variable.assign(values.astype(np.float32))
    images = random.uniform(-1, 1, (2, size, size, 1)).astype(np.float32)
    return np.asarray(network(images, training=False))
"""
ON_NUMPY = """
import sys
import keras
for name, (size, classes) in originals.items():
    print(name, *compute_logits(name, size, classes).ravel())
print("backend", keras.backend.backend(), "tensorflow" in sys.modules)
"""


class TestBackends:
    def test_each_network_returns_the_same_logits_on_numpy_without_tensorflow(self):
        process = subprocess.run(
            [sys.executable, "-c", f"{LOGITS}\noriginals = {ORIGINALS!r}\n{ON_NUMPY}"],
            env={**os.environ, "KERAS_BACKEND": "numpy"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert process.returncode == 0, process.stderr
        *lines, last = process.stdout.splitlines()
        assert last == "backend numpy False"
        logits = {name: [*map(float, values)] for name, *values in map(str.split, lines)}
        assert list(logits) == list(ORIGINALS)
        namespace: dict[str, Any] = {}
        exec(LOGITS, namespace)
        for name, (size, classes) in ORIGINALS.items():
            expected = namespace["compute_logits"](name, size, classes).ravel()
            assert np.abs(expected).max() > 1e-3
            tolerance = 1e-4 * np.abs(expected).max()
            np.testing.assert_allclose(logits[name], expected, rtol=0, atol=tolerance)


class TestBuildErrors:
    @pytest.mark.parametrize("name", SMALLEST)
    def test_the_message_about_small_images_states_the_minimum(self, name):
        least = SMALLEST[name]
        assert registry.build_network(name, least, 7, {}).output_shape == (None, 7)
        message = get_build_error(name, {}, least - 1)
        assert message.startswith(
            f"model.name: {name} cannot be built for {least - 1}x{least - 1} pixels: "
        )
        assert f" at least {least}x{least};" in message
        assert f" image.size={least} or more" in message

    def test_system_e_refuses_28x28_pixels(self):
        assert "it needs at least 31x31;" in get_build_error("system_e", {}, 28)

    @pytest.mark.parametrize("dropout", [-0.1, 1.5, "many", None, [0.1]])
    @pytest.mark.parametrize("name", ["system_b", "system_c"])
    def test_an_invalid_dropout_is_refused(self, name, dropout):
        message = get_build_error(name, {"dropout": dropout})
        assert message.startswith(f"model.options: {name} cannot be built for 28x28 pixels: ")
        assert "\x1b" not in message

    def test_an_option_of_a_network_without_options_is_refused(self):
        message = get_build_error("system_d", {"hidden": 3})
        assert message.startswith("model.options: system_d has no option hidden; ")
        assert message.endswith(" options are none")

    def test_a_misspelt_name_is_corrected_in_the_message(self):
        message = get_build_error("sytem_a", {})
        assert message.startswith("model.name: unknown network 'sytem_a', did you mean system_a? ")
        assert "contains a dot, as in my_module.build" in message

    @pytest.mark.parametrize("name", ["vgg", "", "__init__", "four_blocks", "custom"])
    def test_the_message_about_an_unknown_name_lists_the_networks(self, name):
        message = get_build_error(name, {})
        assert message.startswith(f"model.name: unknown network {name!r}, ")
        assert "system_a" in message

    def test_an_unknown_option_is_refused(self):
        message = get_build_error("system_a", {"hiden": 64})
        assert message.startswith("model.options: system_a has no option hiden; ")
        assert message.endswith(" options are hidden")

    def test_all_unknown_options_are_reported_at_once(self):
        message = get_build_error("system_a", {"depth": 3, "hidden": 8, "size": 28, "classes": 7})
        assert message.startswith("model.options: system_a has no option depth, size, classes; ")
        assert message.endswith(" options are hidden")

    @pytest.mark.parametrize("hidden", [0, -1, "many", 1.5, None, [64], {"a": 1}])
    def test_an_invalid_number_of_units_is_refused(self, hidden):
        message = get_build_error("system_a", {"hidden": hidden})
        assert message.startswith("model.options: system_a cannot be built for 28x28 pixels: ")

    def test_the_names_of_the_networks_are_sorted(self):
        assert "system_a" in registry.list_network_names()
        assert registry.list_network_names() == sorted(registry.list_network_names())
