"""What a network consists of: layers, parameters and multiply-adds, as text and as a picture."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import keras

from fer_pipeline.errors import StorageError
from fer_pipeline.io import storage
from fer_pipeline.learning.analysis import cost

log = logging.getLogger(__name__)

PICTURES = (".pdf", ".png", ".svg")
"""The forms in which `draw` draws."""

_FLOAT32 = 4  # bytes


@dataclass(frozen=True)
class LayerSummary:
    """One layer.

    Attributes:
        name: Its name; within a nested model, behind that model's and a slash.
        kind: The layer's class.
        output_shape: Of one image, without the batch; None where Keras does not know it, in a model
            that is no graph of layers.
        parameters: How many it has, trainable or not.
        multiply_adds: For one image, see `describe`; None where the shape that it gives, or takes,
            is not known.
        left_out: Whether it multiplies with a kernel, and yet counts as 0.
    """

    name: str
    kind: str
    output_shape: tuple[int | None, ...] | None
    parameters: int
    multiply_adds: int | None
    left_out: bool = False


@dataclass(frozen=True)
class NetworkSummary:
    """A network.

    Attributes:
        name: Its name.
        rows: Its layers, in order.
        trainable: Parameters that training changes.
        not_trainable: Those that it does not, such as BatchNorm's moving statistics.
        multiply_adds: For one image; None where those of a layer are not known.
        precision: In which it computes, `float32` or, where it does so in part, `mixed_bfloat16`.
    """

    name: str
    rows: tuple[LayerSummary, ...]
    trainable: int
    not_trainable: int
    multiply_adds: int | None
    precision: str

    @property
    def parameters(self) -> int:
        """All of them."""
        return self.trainable + self.not_trainable

    @property
    def left_out(self) -> list[str]:
        """The kinds of layers that multiply with a kernel, and yet count as 0."""
        return sorted({row.kind for row in self.rows if row.left_out})

    @property
    def megabytes(self) -> float:
        """The size of the parameters as float32, in units of 10^6 bytes."""
        return _FLOAT32 * self.parameters / 1e6


def describe(network: keras.Model) -> NetworkSummary:
    """Describes a network layer by layer, those of nested models in their places.

    One multiply-add is a product and its addition to a sum. Those of convolutions and dense layers
    are counted, each for one image and as the textbook's loops over the whole kernel do, so the
    products with the zeros of a border count too:

    - `Conv2D`: height * width of the output * kernel height * width * input channels (per group)
      * filters;
    - `DepthwiseConv2D`: the same with the depth multiplier in place of the filters;
    - `SeparableConv2D`: a depthwise one, and a `Conv2D` of 1x1 over its outputs;
    - `Conv2DTranspose`: height * width of the input * kernel height * width * input channels
      * filters;
    - `Dense`: inputs * units, for each position where there are several.

    Biases, BatchNorm, activations, poolings and every other layer count as 0; `left_out` names
    those that have a kernel. A layer that is used several times has one row and is counted once.

    Args:
        network: A built model.
    """
    rows = tuple(_rows(network, ""))
    counts = [row.multiply_adds for row in rows]
    known = [count for count in counts if count is not None]
    return NetworkSummary(
        name=network.name,
        rows=rows,
        trainable=_size(network.trainable_weights),
        not_trainable=_size(network.non_trainable_weights),
        multiply_adds=sum(known) if len(known) == len(counts) else None,
        precision="mixed_bfloat16" if "bfloat16" in _computed(network) else "float32",
    )


def _computed(network: keras.Model) -> set[str]:
    found: set[str] = set()
    for layer in network.layers:
        found |= _computed(layer) if isinstance(layer, keras.Model) else {layer.compute_dtype}
    return found


def _rows(network: keras.Model, prefix: str) -> Iterator[LayerSummary]:
    for layer in network.layers:
        name = prefix + layer.name
        if isinstance(layer, keras.Model):
            yield from _rows(layer, f"{name}/")
        elif not isinstance(layer, keras.layers.InputLayer):
            yield LayerSummary(
                name,
                type(layer).__name__,
                cost.input_shape(layer, "output"),
                _size(layer.weights),
                cost.multiply_adds(layer),
                cost.is_left_out(layer),
            )


def _size(variables: Sequence[keras.Variable]) -> int:
    return sum(math.prod(variable.shape) for variable in variables)


def table(summary: NetworkSummary) -> str:
    """The layers and the totals for a terminal."""
    cells = [("layer", "type", "output", "parameters", "multiply-adds")]
    cells += [
        (
            row.name,
            row.kind,
            _shape(row.output_shape),
            _count(row.parameters),
            _count(row.multiply_adds),
        )
        for row in summary.rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    aligned = "<<<>>"
    lines = [
        "  ".join(
            f"{cell:{side}{width}}" for cell, side, width in zip(*parts, strict=True)
        ).rstrip()
        for parts in ((row, aligned, widths) for row in cells)
    ]
    count = summary.multiply_adds
    others = f"; {', '.join(summary.left_out)} as 0" if summary.left_out else ""
    return "\n".join(
        [
            *lines,
            "",
            f"{summary.name}: {summary.parameters:,} parameters ({summary.trainable:,} trainable,"
            f" {summary.not_trainable:,} not), {summary.megabytes:.2f} MB as float32",
            f"multiply-adds per image: {'not known' if count is None else f'{count:,}'} (of"
            f" convolutions and dense layers{others})",
        ]
    )


def _count(number: int | None) -> str:
    if number is None:
        return "?"
    return f"{number:,}" if number else ""


def _shape(shape: tuple[int | None, ...] | None) -> str:
    if shape is None:
        return "?"
    return " x ".join("?" if side is None else str(side) for side in shape)


def draw(network: keras.Model, path: Path) -> bool:
    """Draws the graph of the layers with the shapes of their outputs.

    Graphviz, the program `dot`, does the drawing, and pydot speaks to it. Without them nothing is
    drawn, and the log says so.

    Args:
        network: A built model.
        path: The file, in one of the forms of `PICTURES`.

    Returns:
        Whether it was drawn.

    Raises:
        StorageError: The file's name does not end like a picture's, or it cannot be written.
    """
    if path.suffix not in PICTURES:
        raise StorageError(
            f"{path}: a network is drawn as {', '.join(PICTURES)}; name a file that ends so"
        )
    try:
        # Keras asks whether dot is there before it writes anything.
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
        log.warning("%s: not drawn: graphviz's dot is not on this machine", path)
        return False
    return True
