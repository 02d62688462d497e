"""Summary of a network as text and as a graph: layers, parameters and multiply-adds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from fer_pipeline.errors import StorageError
from fer_pipeline.io import storage
from fer_pipeline.learning.analysis import flops
from fer_pipeline.learning.analysis.flops import Shape
from fer_pipeline.text import format_table

log = logging.getLogger(__name__)

GRAPH_SUFFIXES = (".pdf", ".png", ".svg")
"""File formats of `draw_graph`."""

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class LayerSummary:
    """Summary of one layer.

    Attributes:
        name: Name of the layer; in a nested model, after that model's name and a slash.
        kind: Class of the layer.
        output_shape: Shape of its output for one image, without the batch dimension; None if Keras
            does not know it, as in a model that is no graph of layers.
        parameters: Number of parameters, trainable or not.
        multiply_adds: Multiply-adds for one image, see `summarize_network`; None if the shape of
            its output, or of its input, is not known.
        is_uncounted: Whether it multiplies with a kernel and yet counts as 0.
    """

    name: str
    kind: str
    output_shape: Shape | None
    parameters: int
    multiply_adds: int | None
    is_uncounted: bool = False


@dataclass(frozen=True)
class NetworkSummary:
    """Summary of a network.

    Attributes:
        name: Name of the network.
        layers: Its layers, in order.
        trainable: Number of parameters that training changes.
        not_trainable: Number of the others, such as BatchNorm's moving statistics.
        multiply_adds: Multiply-adds for one image; None if those of a layer are not known.
        precision: `float32`, or `mixed_bfloat16` if some layers compute in bfloat16.
    """

    name: str
    layers: tuple[LayerSummary, ...]
    trainable: int
    not_trainable: int
    multiply_adds: int | None
    precision: str

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return self.trainable + self.not_trainable

    @property
    def uncounted_layers(self) -> list[str]:
        """Classes of the layers that multiply with a kernel and yet count as 0."""
        return sorted({layer.kind for layer in self.layers if layer.is_uncounted})

    @property
    def megabytes(self) -> float:
        """Size of the parameters as float32, in units of 10^6 bytes."""
        return _FLOAT32_BYTES * self.parameters / 1e6


def summarize_network(network: keras.Model) -> NetworkSummary:
    """Summarize a network layer by layer; the layers of nested models are listed in their place.

    One multiply-add is a product and its addition to a sum. Those of convolutions and dense layers
    are counted, for one image and as the textbook's loops over the whole kernel do, so products
    with the zeros of a border count too:

    - `Conv2D`: height * width of the output * kernel height * width * input channels (per group)
      * filters;
    - `DepthwiseConv2D`: the same with the depth multiplier in place of the filters;
    - `SeparableConv2D`: a depthwise one, and a `Conv2D` of 1x1 over its outputs;
    - `Conv2DTranspose`: height * width of the input * kernel height * width * input channels
      * filters;
    - `Dense`: inputs * units, for each position if there are several.

    Biases, BatchNorm, activations, poolings and all other layers count as 0; `uncounted_layers`
    names those that have a kernel. A layer that is used several times is listed and counted once.

    Args:
        network: A built model.
    """
    layers = tuple(_summarize_layers(network, ""))
    counts = [layer.multiply_adds for layer in layers if layer.multiply_adds is not None]
    return NetworkSummary(
        name=network.name,
        layers=layers,
        trainable=_count_parameters(network.trainable_weights),
        not_trainable=_count_parameters(network.non_trainable_weights),
        multiply_adds=sum(counts) if len(counts) == len(layers) else None,
        precision="mixed_bfloat16" if "bfloat16" in _collect_compute_dtypes(network) else "float32",
    )


def _collect_compute_dtypes(network: keras.Model) -> set[str]:
    dtypes: set[str] = set()
    for layer in network.layers:
        dtypes |= (
            _collect_compute_dtypes(layer)
            if isinstance(layer, keras.Model)
            else {layer.compute_dtype}
        )
    return dtypes


def _summarize_layers(network: keras.Model, prefix: str) -> Iterator[LayerSummary]:
    for layer in network.layers:
        name = prefix + layer.name
        if isinstance(layer, keras.Model):
            yield from _summarize_layers(layer, f"{name}/")
        elif not isinstance(layer, keras.layers.InputLayer):
            yield LayerSummary(
                name=name,
                kind=type(layer).__name__,
                output_shape=flops.get_shape_per_image(layer, "output"),
                parameters=_count_parameters(layer.weights),
                multiply_adds=flops.count_multiply_adds(layer),
                is_uncounted=flops.has_uncounted_kernel(layer),
            )


def _count_parameters(variables: Sequence[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def format_summary(summary: NetworkSummary) -> str:
    """Return the layers and the totals as text for a terminal."""
    rows = [
        (
            layer.name,
            layer.kind,
            _format_shape(layer.output_shape),
            _format_count(layer.parameters),
            _format_count(layer.multiply_adds),
        )
        for layer in summary.layers
    ]
    table = format_table(
        rows,
        header=("layer", "type", "output", "parameters", "multiply-adds"),
        alignment=("left", "left", "left", "right", "right"),
    )
    count = summary.multiply_adds
    uncounted = summary.uncounted_layers
    exceptions = f"; {', '.join(uncounted)} as 0" if uncounted else ""
    return "\n".join(
        [
            *(line.rstrip() for line in table.splitlines()),
            "",
            f"{summary.name}: {summary.parameters:,} parameters ({summary.trainable:,} trainable,"
            f" {summary.not_trainable:,} not), {summary.megabytes:.2f} MB as float32",
            f"multiply-adds per image: {'not known' if count is None else f'{count:,}'} (of"
            f" convolutions and dense layers{exceptions})",
        ]
    )


def _format_count(number: int | None) -> str:
    if number is None:
        return "?"
    return f"{number:,}" if number else ""


def _format_shape(shape: Shape | None) -> str:
    if shape is None:
        return "?"
    return " x ".join("?" if side is None else str(side) for side in shape)


def draw_graph(network: keras.Model, path: Path) -> bool:
    """Draw the graph of the layers with the shapes of their outputs.

    Keras does it with pydot and Graphviz's program `dot`. Without them no file is written, and
    a warning is logged.

    Args:
        network: A built model.
        path: Path of the file, with one of `GRAPH_SUFFIXES`.

    Returns:
        Whether the file was written.

    Raises:
        StorageError: The file has another suffix, or cannot be written.
    """
    if path.suffix not in GRAPH_SUFFIXES:
        raise StorageError(
            f"{path}: a network graph can be saved as {', '.join(GRAPH_SUFFIXES)}; choose a file"
            " name with one of these suffixes"
        )
    try:
        # Keras checks that dot exists before it writes anything.
        with storage.atomic_write(path) as temporary:
            keras.utils.plot_model(
                network,
                to_file=temporary,
                show_shapes=True,
                show_layer_names=True,
                expand_nested=True,
                dpi=64,
            )
    except ImportError:
        log.warning("%s: not written, because Graphviz's dot is not installed", path)
        return False
    return True
