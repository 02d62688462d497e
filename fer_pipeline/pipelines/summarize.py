"""What the network of a configuration consists of, before anything is trained."""

from __future__ import annotations

from pathlib import Path

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.learning.analysis import network_summary
from fer_pipeline.learning.networks import registry


def summarize(config: Config, dataset: str | None, picture: Path) -> str:
    """Describes a network layer by layer, and draws its graph where graphviz is there.

    Args:
        config: The configuration; names the network and its options.
        dataset: The dataset's folder, which has the size of the images and the classes; without it
            the configuration has them.
        picture: Where the graph is drawn, as PNG, SVG or PDF.

    Returns:
        The layers with shapes, parameters and multiply-adds, and where the picture is or why there
        is none, for a terminal.

    Raises:
        DatasetError: The dataset is none.
        ConfigError: There is no such network or option.
        StorageError: The picture cannot be written there.
    """
    if dataset is None:
        size, classes = config.image.size, config.class_names
    else:
        stored = StoredDataset.open(dataset)
        size, classes = stored.image_size, stored.classes
    network = registry.build_network(config.model.name, size, len(classes), config.model.options)
    drawn = network_summary.draw_graph(network, picture)
    return "\n".join(
        [
            f"{config.model.name} for {size}x{size} pixels and {len(classes)} classes"
            f" ({', '.join(classes)})",
            "",
            network_summary.format_summary(network_summary.summarize_network(network)),
            f"wrote {picture}" if drawn else "no picture: it needs graphviz (apt install graphviz)",
        ]
    )
