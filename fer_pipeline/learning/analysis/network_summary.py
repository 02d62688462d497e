"""Summary of a network as text and as a graph: layers, parameters and multiply-adds."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from fer_pipeline.io import storage
from fer_pipeline.learning.analysis import flops, graph_files
from fer_pipeline.learning.analysis.flops import Shape
from fer_pipeline.text import format_table

log = logging.getLogger(__name__)

_FLOAT32_BYTES = 4


@dataclass(frozen=True)
class LayerSummary:
    """Summary of one layer.

    Attributes:
        name: Name of the layer, after the name of its nested model and a slash, if any.
        kind: Name of the layer's class.
        output_shape: Shape of the output for one image, without the batch dimension; None if Keras
            does not know it, as in a model that is not a graph of layers.
        parameters: Number of parameters, trainable and non-trainable.
        multiply_adds: Number of multiply-adds for one image; 0 for all layers except
            two-dimensional convolutions and dense layers; None if the input or output shape is
            unknown.
        has_uncounted_kernel: Whether the layer has a kernel, but its multiply-adds are not counted.
    """

    name: str
    kind: str
    output_shape: Shape | None
    parameters: int
    multiply_adds: int | None
    has_uncounted_kernel: bool = False


@dataclass(frozen=True)
class NetworkSummary:
    """Summary of a network.

    Attributes:
        name: Name of the network.
        layers: Layers of the network, in order.
        trainable_parameters: Number of trainable parameters.
        non_trainable_parameters: Number of parameters that training by gradients does not change,
            such as the moving statistics of BatchNorm.
        multiply_adds: Number of multiply-adds for one image; None if it is unknown for a layer.
        precision: `float32`, or `mixed_bfloat16` if some layers compute in bfloat16.
    """

    name: str
    layers: tuple[LayerSummary, ...]
    trainable_parameters: int
    non_trainable_parameters: int
    multiply_adds: int | None
    precision: str

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return self.trainable_parameters + self.non_trainable_parameters

    @property
    def uncounted_layers(self) -> list[str]:
        """Class names, sorted, of the layers whose kernels `multiply_adds` leaves out.

        Examples are `Conv1D` and `LSTM`.
        """
        return sorted({layer.kind for layer in self.layers if layer.has_uncounted_kernel})

    @property
    def megabytes(self) -> float:
        """Size of all parameters in float32, in megabytes (10^6 bytes)."""
        return _FLOAT32_BYTES * self.parameters / 1e6


def summarize_network(network: keras.Model) -> NetworkSummary:
    """Summarize a network layer by layer, including the layers of nested models.

    The summary contains the number of multiply-adds for one image. A multiply-add is one
    multiplication and the addition of the product to a sum. These layers are counted:

    - `Conv2D`: output height * output width * kernel height * kernel width * input channels (per
      group) * filters;
    - `DepthwiseConv2D`: the same, with the depth multiplier instead of the filters;
    - `SeparableConv2D`: the sum of a `DepthwiseConv2D` and of the 1x1 `Conv2D` that follows it;
    - `Conv2DTranspose`: input height * input width * kernel height * kernel width * input channels
      * filters;
    - `Dense`: inputs * units, at each position if there are several.

    Multiplications by the zeros of the padding are included. All other layers, such as BatchNorm
    and pooling, count as 0, even if they have a kernel (`NetworkSummary.uncounted_layers`). A layer
    that is used several times is listed and counted once.

    Args:
        network: A built model.
    """
    layers = tuple(_summarize_layers(network, ""))
    counts = [layer.multiply_adds for layer in layers if layer.multiply_adds is not None]
    return NetworkSummary(
        name=network.name,
        layers=layers,
        trainable_parameters=_count_parameters(network.trainable_weights),
        non_trainable_parameters=_count_parameters(network.non_trainable_weights),
        multiply_adds=sum(counts) if len(counts) == len(layers) else None,
        precision="mixed_bfloat16" if "bfloat16" in _collect_compute_dtypes(network) else "float32",
    )


def _collect_compute_dtypes(network: keras.Model) -> set[str]:
    """Return the dtypes in which the layers of a model and of its nested models compute."""
    dtypes: set[str] = set()
    for layer in network.layers:
        dtypes |= (
            _collect_compute_dtypes(layer)
            if isinstance(layer, keras.Model)
            else {layer.compute_dtype}
        )
    return dtypes


def _summarize_layers(network: keras.Model, prefix: str) -> Iterator[LayerSummary]:
    """Yield a summary of each layer of a model and of its nested models, except input layers.

    Args:
        network: A built model.
        prefix: Text before each layer name: for a nested model its name and a slash, otherwise
            empty.
    """
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
                has_uncounted_kernel=flops.has_uncounted_kernel(layer),
            )


def _count_parameters(variables: Sequence[keras.Variable]) -> int:
    """Return the number of elements of all variables together."""
    return sum(math.prod(variable.shape) for variable in variables)


def format_summary(summary: NetworkSummary) -> str:
    """Format a summary as text for the terminal: a table of the layers, and the totals."""
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
    multiply_adds = "unknown" if summary.multiply_adds is None else f"{summary.multiply_adds:,}"
    uncounted_layers = ", ".join(summary.uncounted_layers)
    exceptions = f"; not counted: {uncounted_layers}" if uncounted_layers else ""
    return "\n".join(
        [
            *(line.rstrip() for line in table.splitlines()),
            "",
            f"{summary.name}: {summary.parameters:,} parameters"
            f" ({summary.trainable_parameters:,} trainable,"
            f" {summary.non_trainable_parameters:,} non-trainable),"
            f" {summary.megabytes:.2f} MB as float32",
            f"multiply-adds per image: {multiply_adds} (convolutions and dense layers only"
            f"{exceptions})",
        ]
    )


def _format_count(count: int | None) -> str:
    """Return a count with thousands separators; "?" for None, empty for 0."""
    if count is None:
        return "?"
    return f"{count:,}" if count else ""


def _format_shape(shape: Shape | None) -> str:
    """Return a shape as text, such as "28 x 28 x 16".

    An unknown length is "?", and so is an unknown shape.
    """
    if shape is None:
        return "?"
    return " x ".join("?" if length is None else str(length) for length in shape)


def save_network_graph(network: keras.Model, path: Path) -> bool:
    """Save a diagram of the layers of a network with their output shapes, if Graphviz is installed.

    Keras needs pydot and the program `dot` of Graphviz for the diagram. If they are not installed,
    a warning is logged and no file is written.

    Args:
        network: A built model.
        path: Path of the output file, with one of `graph_files.GRAPH_SUFFIXES`.

    Returns:
        Whether the file was written.

    Raises:
        StorageError: The suffix of the path is not supported, or the file cannot be written.
    """
    graph_files.require_graph_file(path)
    try:
        # Keras raises ImportError before it writes anything if `dot` is missing.
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
