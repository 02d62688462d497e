"""Summary of an untrained network: its layers, parameters, multiply-adds and graph."""

from __future__ import annotations

from pathlib import Path

from fer_pipeline.config import Config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.learning.analysis import graph_files
from fer_pipeline.learning.networks import registry


def summarize(config: Config, dataset: str | None, output: Path) -> str:
    """Describe the layers of a network, and save its graph if Graphviz is installed.

    Args:
        config: Configuration with the name and the options of the network.
        dataset: Folder of a dataset whose image size and classes are used. None uses the image
            size and the classes of the configuration.
        output: Path of the graph to write, a PNG, SVG or PDF file.

    Returns:
        A table of the layers, and the path of the graph or a note that Graphviz is missing, for the
        terminal.

    Raises:
        DatasetError: The folder does not contain a dataset.
        ConfigError: The network or one of its options does not exist.
        StorageError: The graph cannot be written.
    """
    if dataset is None:
        size, classes = config.image.size, config.class_names
    else:
        stored = StoredDataset.open(dataset)
        size, classes = stored.image_size, stored.classes
    graph_files.require_graph_file(output)
    registry.require_network(config.model.name, size, config.model.options)
    # This imports TensorFlow, which takes seconds. All mistakes that can be found without it have
    # been reported by now.
    from fer_pipeline.learning.analysis import network_summary

    network = registry.build_network(config.model.name, size, len(classes), config.model.options)
    is_drawn = network_summary.save_network_graph(network, output)
    return "\n".join(
        [
            f"{config.model.name} for {size}x{size} pixels and {len(classes)} classes"
            f" ({', '.join(classes)})",
            "",
            network_summary.format_summary(network_summary.summarize_network(network)),
            f"wrote {output}" if is_drawn else "no graph: it needs graphviz (apt install graphviz)",
        ]
    )
