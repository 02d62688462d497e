import json
import logging
import math
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.config import load_config
from fer_pipeline.errors import ConfigError, DatasetError, StorageError
from fer_pipeline.learning.analysis.graph_files import GRAPH_SUFFIXES
from fer_pipeline.learning.analysis.network_summary import (
    LayerSummary,
    format_summary,
    save_network_graph,
    summarize_network,
)
from fer_pipeline.learning.networks import registry
from fer_pipeline.pipelines.summarize import summarize
from tests.helpers.one_layer import build_one_layer_network, count_products

SYSTEM_A = (
    LayerSummary("convolution_1", "Conv2D", (28, 28, 16), 416, 28 * 28 * 5 * 5 * 1 * 16),
    LayerSummary("pool_1", "MaxPooling2D", (14, 14, 16), 0, 0),
    LayerSummary("convolution_2", "Conv2D", (14, 14, 16), 6_416, 14 * 14 * 5 * 5 * 16 * 16),
    LayerSummary("pool_2", "MaxPooling2D", (7, 7, 16), 0, 0),
    LayerSummary("flatten", "Flatten", (784,), 0, 0),
    LayerSummary("hidden", "Dense", (64,), 50_240, 784 * 64),
    LayerSummary("logits", "Dense", (7,), 455, 64 * 7),
)
MULTIPLY_ADDS = 313_600 + 1_254_400 + 50_176 + 448
TABLE = """\
layer          type          output        parameters  multiply-adds
convolution_1  Conv2D        28 x 28 x 16         416        313,600
pool_1         MaxPooling2D  14 x 14 x 16
convolution_2  Conv2D        14 x 14 x 16       6,416      1,254,400
pool_2         MaxPooling2D  7 x 7 x 16
flatten        Flatten       784
hidden         Dense         64                50,240         50,176
logits         Dense         7                    455            448

system_a: 57,527 parameters (57,527 trainable, 0 non-trainable), 0.23 MB as float32
multiply-adds per image: 1,618,624 (convolutions and dense layers only)"""


@pytest.fixture(scope="module")
def system_a():
    return registry.build_network("system_a", 28, 7, {})


class Unknown(keras.Model):
    """A subclassed model: its layers have no symbolic outputs."""

    def __init__(self):
        super().__init__(name="unknown")
        self.flat, self.logits = (
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(2, name="end"),
        )

    def call(self, images):
        return self.logits(self.flat(images))


class TestSummarizeNetwork:
    def test_layers_and_totals_of_system_a(self, system_a):
        summary = summarize_network(system_a)
        assert summary.layers == SYSTEM_A
        assert summary.name == "system_a"
        assert (summary.trainable_parameters, summary.non_trainable_parameters) == (57_527, 0)
        assert summary.parameters == 57_527
        assert summary.multiply_adds == MULTIPLY_ADDS
        assert summary.megabytes == 57_527 * 4 / 1_000_000

    @pytest.mark.parametrize(
        ("name", "size", "classes", "trainable", "not_trainable", "multiply_adds"),
        [
            # The textbook's formula for each convolution and dense layer, in their order.
            (
                "system_b", 48, 7, 3_190_407, 2_432,
                48**2 * 9 * 64 + 24**2 * 25 * 64 * 128 + 12**2 * 9 * 128 * 512
                + 6**2 * 9 * 512 * 512 + 4608 * 7,
            ),
            (
                "mini_xception", 28, 7, 56_951, 1_472,
                26**2 * 9 * 8 + 24**2 * 9 * 8 * 8
                + sum(
                    side**2 * (9 * inputs + inputs * filters + 9 * filters + filters * filters)
                    + math.ceil(side / 2) ** 2 * inputs * filters
                    for side, inputs, filters in (
                        (24, 8, 16), (12, 16, 32), (6, 32, 64), (3, 64, 128)
                    )
                )
                + 2**2 * 9 * 128 * 7,
            ),
        ],
    )  # fmt: skip
    def test_totals_of_the_other_networks(
        self, name, size, classes, trainable, not_trainable, multiply_adds
    ):
        summary = summarize_network(registry.build_network(name, size, classes, {}))
        assert (summary.trainable_parameters, summary.non_trainable_parameters) == (
            trainable,
            not_trainable,
        )
        assert summary.multiply_adds == multiply_adds
        assert sum(row.parameters for row in summary.layers) == summary.parameters

    def test_nested_models_are_flattened(self, system_a):
        pixels = keras.Input((28, 28, 1))
        inner = keras.Sequential([system_a, keras.layers.Dense(7, name="more")], name="inner")
        around_both = keras.layers.Softmax(name="probabilities")(
            inner(keras.layers.Rescaling(2.0, name="rescaling")(pixels))
        )
        summary = summarize_network(keras.Model(pixels, around_both, name="outer"))
        assert summary.layers == (
            LayerSummary("rescaling", "Rescaling", (28, 28, 1), 0, 0),
            *(
                LayerSummary(f"inner/system_a/{r.name}", r.kind, r.output_shape, r.parameters,
                    r.multiply_adds)
                for r in SYSTEM_A
            ),
            LayerSummary("inner/more", "Dense", (7,), 56, 49),
            LayerSummary("probabilities", "Softmax", (7,), 0, 0),
        )  # fmt: skip
        assert summary.multiply_adds == MULTIPLY_ADDS + 49
        assert summary.parameters == 57_527 + 56

    def test_frozen_layers_are_not_trainable(self):
        network = registry.build_network("system_a", 28, 7, {})
        network.get_layer("hidden").trainable = False
        summary = summarize_network(network)
        assert (summary.trainable_parameters, summary.non_trainable_parameters) == (
            57_527 - 50_240,
            50_240,
        )

    def test_a_dense_layer_on_feature_maps_costs_its_products_at_each_position(self):
        assert (
            summarize_network(
                build_one_layer_network(keras.layers.Dense(5), (4, 6, 3))
            ).multiply_adds
            == 4 * 6 * 3 * 5
        )

    def test_unknown_outputs_are_shown_as_unknown_and_not_as_zero(self):
        network = Unknown()
        network(np.zeros((1, 4, 4, 1), np.float32))
        summary = summarize_network(network)
        assert summary.layers == (
            LayerSummary("flat", "Flatten", None, 0, 0),
            LayerSummary("end", "Dense", None, 34, None),
        )
        assert summary.multiply_adds is None
        assert format_summary(summary) == (
            "layer  type     output  parameters  multiply-adds\n"
            "flat   Flatten  ?\n"
            "end    Dense    ?               34              ?\n"
            "\n"
            "unknown: 34 parameters (34 trainable, 0 non-trainable), 0.00 MB as float32\n"
            "multiply-adds per image: unknown (convolutions and dense layers only)"
        )

    def test_the_count_is_unknown_if_a_side_of_the_input_is_unknown(self):
        layer = keras.layers.Conv2D(4, 3, name="convolution")
        (row,) = summarize_network(build_one_layer_network(layer, (None, 8, 1))).layers
        assert row == LayerSummary("convolution", "Conv2D", (None, 6, 4), 40, None)
        assert "? x 6 x 4" in format_summary(
            summarize_network(build_one_layer_network(keras.layers.Conv2D(4, 3), (None, 8, 1)))
        )


def summarize_multiply_adds(layer: keras.Layer) -> int | None:
    """Return the multiply-adds of a network of this layer, which has been called."""
    return summarize_network(build_one_layer_network(layer, layer.input.shape[1:])).multiply_adds


class TestCountedProducts:
    @settings(max_examples=20, deadline=None)
    @given(draws=st.data())
    def test_convolutions_cost_as_many_products_as_they_compute(self, draws):
        def draw_integer(largest: int, smallest: int = 1) -> int:
            return draws.draw(st.integers(smallest, largest))

        kernel, groups = (draw_integer(4), draw_integer(4)), draw_integer(2)
        shape = (draw_integer(9, 4), draw_integer(9, 4), groups * draw_integer(3))
        options: dict[str, int] = {"use_bias": False}
        options["dilation_rate" if draws.draw(st.booleans()) and max(kernel) < 3 else "strides"] = 2
        layer = keras.layers.Conv2D(groups * draw_integer(3), kernel, groups=groups, **options)
        products = count_products(layer, shape)
        assert products > 0
        assert summarize_multiply_adds(layer) == products
        depthwise = keras.layers.DepthwiseConv2D(
            kernel, depth_multiplier=draw_integer(3), use_bias=False
        )
        products = count_products(depthwise, shape)
        assert products > 0
        assert summarize_multiply_adds(depthwise) == products

    @given(st.integers(1, 9), st.integers(1, 9))
    @settings(max_examples=5, deadline=None)
    def test_a_dense_layer_costs_inputs_times_units(self, inputs, units):
        layer = keras.layers.Dense(units, use_bias=False)
        assert count_products(layer, (inputs,)) == inputs * units
        assert summarize_multiply_adds(layer) == inputs * units

    @pytest.mark.parametrize("strides", [1, 2])
    @pytest.mark.parametrize("padding", ["same", "valid"])
    def test_a_separable_convolution_costs_a_depthwise_and_a_pointwise_one(self, strides, padding):
        options = {"strides": strides, "padding": padding, "depth_multiplier": 2}
        separable = build_one_layer_network(
            keras.layers.SeparableConv2D(5, 3, **options), (9, 8, 3)
        )
        depthwise_and_pointwise = keras.Sequential(
            [
                keras.layers.Input((9, 8, 3)),
                keras.layers.DepthwiseConv2D(3, **options),
                keras.layers.Conv2D(5, 1),
            ]
        )
        assert (
            summarize_network(separable).multiply_adds
            == summarize_network(depthwise_and_pointwise).multiply_adds
        )


class TestTable:
    def test_the_table_of_system_a(self, system_a):
        assert format_summary(summarize_network(system_a)) == TABLE

    @pytest.mark.parametrize("name", registry.list_network_names())
    def test_no_line_is_wider_than_100_columns(self, name):
        lines = format_summary(
            summarize_network(registry.build_network(name, 48, 7, {}))
        ).splitlines()
        assert max(map(len, lines)) <= 100
        assert all(line == line.rstrip() for line in lines)


MAGIC_BYTES = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


class TestNetworkGraph:
    @pytest.mark.parametrize("suffix", GRAPH_SUFFIXES)
    def test_a_file_is_written_only_if_graphviz_is_installed(
        self, system_a, tmp_path, suffix, caplog
    ):
        path = tmp_path / f"graph{suffix}"
        is_written = save_network_graph(system_a, path)
        assert is_written == (shutil.which("dot") is not None)
        if is_written:
            assert path.read_bytes().startswith(MAGIC_BYTES[suffix])
        assert list(tmp_path.iterdir()) == ([path] if is_written else [])

    def test_without_graphviz_an_older_file_is_kept_and_the_log_says_why(
        self, system_a, tmp_path, monkeypatch, caplog
    ):
        monkeypatch.setenv("PATH", str(tmp_path))
        path = tmp_path / "graph.png"
        path.write_bytes(b"older")
        with caplog.at_level(logging.INFO):
            assert save_network_graph(system_a, path) is False
        messages = [
            record.getMessage() for record in caplog.records if "graph.png" in record.message
        ]
        assert messages == [f"{path}: not written, because Graphviz's dot is not installed"]
        assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"older"]

    @pytest.mark.parametrize("name", ["graph", "graph.jpeg", "graph.keras", "graph.PNG"])
    def test_another_file_type_is_refused(self, system_a, tmp_path, name):
        with pytest.raises(StorageError) as error:
            save_network_graph(system_a, tmp_path / name)
        message = str(error.value)
        assert message.startswith(f"{tmp_path / name}: ")
        assert "saved as .pdf, .png, .svg" in message

    def test_a_path_below_a_file_is_an_error(self, system_a, tmp_path):
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(StorageError, match="cannot be written"):
            save_network_graph(system_a, tmp_path / "file" / "graph.png")


def describe_graph(path: Path) -> str:
    """Return the line about the graph: written, or Graphviz is missing on this machine."""
    if shutil.which("dot"):
        return f"wrote {path}"
    return "no graph: it needs graphviz (apt install graphviz)"


class TestSummarize:
    def test_the_configuration_decides_size_and_classes(self, tmp_path):
        config = load_config(None, ["image.size=28"])
        first, empty, *lines, last = summarize(config, None, tmp_path / "a.png").splitlines()
        assert first == (
            "system_a for 28x28 pixels and 7 classes (angry, disgust, fear, happy, sad, surprise,"
            " neutral)"
        )
        assert (empty, "\n".join(lines)) == ("", TABLE)
        assert last == describe_graph(tmp_path / "a.png")

    def test_the_dataset_decides_size_and_classes(self, easy_dataset, tmp_path):
        # The configuration has another size and seven classes.
        manifest = json.loads((easy_dataset / "manifest.json").read_text())
        config = load_config(None, ["model.options={hidden: 8}", "image.size=48"])
        text = summarize(config, str(easy_dataset), tmp_path / "a.png")
        assert text.startswith("system_a for 16x16 pixels and 3 classes (angry, happy, sad)\n")
        assert (manifest["image"]["size"], manifest["classes"]) == (16, ["angry", "happy", "sad"])
        parameters = 416 + 6_416 + (4 * 4 * 16 + 1) * 8 + 9 * 3
        assert f"system_a: {parameters:,} parameters" in text

    def test_a_missing_dataset_is_an_error(self, tmp_path):
        with pytest.raises(DatasetError, match="no such folder"):
            summarize(load_config(None), str(tmp_path / "none"), tmp_path / "a.png")

    def test_an_unknown_network_is_an_error_that_suggests_a_name(self, tmp_path):
        with pytest.raises(ConfigError, match=r"did you mean system_b\?"):
            summarize(load_config(None, ["model.name=systemb"]), None, tmp_path / "a.png")
        assert list(tmp_path.iterdir()) == []
