import json
import logging
import math
import shutil

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fer_pipeline.config import load_config
from fer_pipeline.errors import ConfigError, DatasetError, StorageError
from fer_pipeline.learning.analysis import network_summary
from fer_pipeline.learning.analysis.network_summary import (
    LayerSummary,
    format_summary,
    save_network_graph,
    summarize_network,
)
from fer_pipeline.learning.networks import registry
from fer_pipeline.pipelines.summarize import summarize

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


def around(layer, shape):
    """A model of one layer."""
    return keras.Sequential([keras.layers.Input(shape), layer])


class Unknown(keras.Model):
    """A model that is no graph of layers: nothing in it has a symbolic output."""

    def __init__(self):
        super().__init__(name="unknown")
        self.flat, self.logits = (
            keras.layers.Flatten(name="flat"),
            keras.layers.Dense(2, name="end"),
        )

    def call(self, images):
        return self.logits(self.flat(images))


class TestDescribe:
    def test_system_a(self, system_a):
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
            # Of every convolution and dense layer by the textbook's formula, in their order.
            (
                *("system_b", 48, 7, 3_190_407, 2_432),
                48**2 * 9 * 64 + 24**2 * 25 * 64 * 128 + 12**2 * 9 * 128 * 512
                + 6**2 * 9 * 512 * 512 + 4608 * 7,
            ),
            (
                *("mini_xception", 28, 7, 56_951, 1_472),
                26**2 * 9 * 8 + 24**2 * 9 * 8 * 8
                + sum(
                    side**2 * (9 * given + given * made + 9 * made + made * made)
                    + math.ceil(side / 2) ** 2 * given * made
                    for side, given, made in ((24, 8, 16), (12, 16, 32), (6, 32, 64), (3, 64, 128))
                )
                + 2**2 * 9 * 128 * 7,
            ),
        ],
    )  # fmt: skip
    def test_totals(self, name, size, classes, trainable, not_trainable, multiply_adds):
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

    def test_a_dense_layer_over_maps_is_counted_at_each_position(self):
        assert (
            summarize_network(around(keras.layers.Dense(5), (4, 6, 3))).multiply_adds
            == 4 * 6 * 3 * 5
        )

    def test_what_is_not_known_is_not_counted_as_nothing(self):
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

    def test_a_size_that_is_not_known(self):
        layer = keras.layers.Conv2D(4, 3, name="convolution")
        (row,) = summarize_network(around(layer, (None, 8, 1))).layers
        assert row == LayerSummary("convolution", "Conv2D", (None, 6, 4), 40, None)
        assert "? x 6 x 4" in format_summary(
            summarize_network(around(keras.layers.Conv2D(4, 3), (None, 8, 1)))
        )


# With an input, a kernel and no border of anything but ones, each output is the number of products
# that it sums, and their sum is the number of multiply-adds.
class TestAgainstCounting:
    def counted(self, layer, shape):
        network = around(layer, shape)
        for variable in network.weights:
            variable.assign(np.ones(variable.shape, np.float32))
        return int(np.asarray(network(np.ones((1, *shape), np.float32)), np.float64).sum()), (
            summarize_network(network).multiply_adds
        )

    @settings(max_examples=20, deadline=None)
    @given(data=st.data())
    def test_convolutions(self, data):
        def number(most, least=1):
            return data.draw(st.integers(least, most))

        kernel, groups = (number(4), number(4)), number(2)
        shape = (number(9, 4), number(9, 4), groups * number(3))
        chosen = {"use_bias": False}
        chosen["dilation_rate" if data.draw(st.booleans()) and max(kernel) < 3 else "strides"] = 2
        layer = keras.layers.Conv2D(groups * number(3), kernel, groups=groups, **chosen)
        found, said = self.counted(layer, shape)
        assert said == found > 0
        depthwise = keras.layers.DepthwiseConv2D(kernel, depth_multiplier=number(3), use_bias=False)
        found, said = self.counted(depthwise, shape)
        assert said == found > 0

    @given(st.integers(1, 9), st.integers(1, 9))
    @settings(max_examples=5, deadline=None)
    def test_dense(self, inputs, units):
        found, said = self.counted(keras.layers.Dense(units, use_bias=False), (inputs,))
        assert said == found == inputs * units

    @pytest.mark.parametrize("strides", [1, 2])
    @pytest.mark.parametrize("padding", ["same", "valid"])
    def test_a_separable_convolution_is_a_depthwise_and_a_pointwise_one(self, strides, padding):
        how = {"strides": strides, "padding": padding, "depth_multiplier": 2}
        one = around(keras.layers.SeparableConv2D(5, 3, **how), (9, 8, 3))
        two = keras.Sequential(
            [
                keras.layers.Input((9, 8, 3)),
                keras.layers.DepthwiseConv2D(3, **how),
                keras.layers.Conv2D(5, 1),
            ]
        )
        assert summarize_network(one).multiply_adds == summarize_network(two).multiply_adds


class TestTable:
    def test_system_a(self, system_a):
        assert format_summary(summarize_network(system_a)) == TABLE

    @pytest.mark.parametrize("name", registry.list_network_names())
    def test_every_line_fits_a_terminal(self, name):
        lines = format_summary(
            summarize_network(registry.build_network(name, 48, 7, {}))
        ).splitlines()
        assert max(map(len, lines)) <= 100
        assert all(line == line.rstrip() for line in lines)


BEGINNINGS = {".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}


class TestDraw:
    @pytest.mark.parametrize("suffix", network_summary.GRAPH_SUFFIXES)
    def test_a_picture_where_graphviz_is_there_and_else_nothing(
        self, system_a, tmp_path, suffix, caplog
    ):
        path = tmp_path / f"graph{suffix}"
        drawn = save_network_graph(system_a, path)
        assert drawn == (shutil.which("dot") is not None)
        if drawn:
            assert path.read_bytes().startswith(BEGINNINGS[suffix])
        assert list(tmp_path.iterdir()) == ([path] if drawn else [])

    def test_without_graphviz(self, system_a, tmp_path, monkeypatch, caplog):
        monkeypatch.setenv("PATH", str(tmp_path))
        path = tmp_path / "graph.png"
        path.write_bytes(b"older")
        with caplog.at_level(logging.INFO):
            assert save_network_graph(system_a, path) is False
        said = [record.getMessage() for record in caplog.records if "graph.png" in record.message]
        assert said == [f"{path}: not written, because Graphviz's dot is not installed"]
        assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"older"]

    @pytest.mark.parametrize("name", ["graph", "graph.jpeg", "graph.keras", "graph.PNG"])
    def test_a_name_that_is_no_picture(self, system_a, tmp_path, name):
        with pytest.raises(StorageError) as error:
            save_network_graph(system_a, tmp_path / name)
        message = str(error.value)
        assert message.startswith(f"{tmp_path / name}: ")
        assert "saved as .pdf, .png, .svg" in message

    def test_a_folder_that_cannot_be_written(self, system_a, tmp_path):
        (tmp_path / "file").write_text("no folder")
        with pytest.raises(StorageError, match="cannot be written"):
            save_network_graph(system_a, tmp_path / "file" / "graph.png")


class TestSummarize:
    def last(self, path):
        if shutil.which("dot"):
            return f"wrote {path}"
        return "no graph: it needs graphviz (apt install graphviz)"

    def test_with_the_configuration_alone(self, tmp_path):
        chosen = load_config(None, ["image.size=28"])
        first, empty, *lines, last = summarize(chosen, None, tmp_path / "a.png").splitlines()
        assert first == (
            "system_a for 28x28 pixels and 7 classes (angry, disgust, fear, happy, sad, surprise,"
            " neutral)"
        )
        assert (empty, "\n".join(lines)) == ("", TABLE)
        assert last == self.last(tmp_path / "a.png")

    def test_with_a_dataset(self, easy_dataset, tmp_path):
        # The size and the classes are those of the dataset, whatever the configuration says.
        made = json.loads((easy_dataset / "manifest.json").read_text())
        chosen = load_config(None, ["model.options={hidden: 8}", "image.size=48"])
        text = summarize(chosen, str(easy_dataset), tmp_path / "a.png")
        assert text.startswith("system_a for 16x16 pixels and 3 classes (angry, happy, sad)\n")
        assert (made["image"]["size"], made["classes"]) == (16, ["angry", "happy", "sad"])
        parameters = 416 + 6_416 + (4 * 4 * 16 + 1) * 8 + 9 * 3
        assert f"system_a: {parameters:,} parameters" in text

    def test_no_dataset(self, tmp_path):
        with pytest.raises(DatasetError, match="no such folder"):
            summarize(load_config(None), str(tmp_path / "none"), tmp_path / "a.png")

    def test_no_such_network(self, tmp_path):
        with pytest.raises(ConfigError, match=r"did you mean system_b\?"):
            summarize(load_config(None, ["model.name=systemb"]), None, tmp_path / "a.png")
        assert list(tmp_path.iterdir()) == []
