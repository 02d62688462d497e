"""Comparison of several models on the same images: accuracy, cost and significance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.significance import PairwiseTest


@dataclass(frozen=True)
class Cost:
    """Cost of a model.

    Attributes:
        parameters: Number of parameters.
        multiply_adds: Multiply-adds of the convolution and dense layers, per image and forward
            pass; None if unknown.
        uncounted_layers: Class names of layers that have a kernel but are not counted.
        images_per_second: Images per second in forward passes on the current machine.
    """

    parameters: int
    multiply_adds: int | None
    uncounted_layers: tuple[str, ...]
    images_per_second: float


@dataclass(frozen=True)
class ModelResult:
    """Metrics and cost of one model.

    Attributes:
        name: Unique name of the model in the comparison.
        path: Folder of the training run.
        sha256: SHA-256 of the file `model.keras`.
        dataset_checksum: Checksum of the dataset that the model was trained on.
        network: Name of the network in the configuration.
        size: Height and width of the input images, in pixels.
        precision: Precision of the computations, `float32` or `mixed_bfloat16`.
        cost: Cost of the model.
        metrics: Metrics of all images.
        without_overlap: Metrics of the images without an exact copy in the train split. None if no
            image has such a copy, if every image has one, if the evaluated split is the train
            split, or if the train split is empty.
    """

    name: str
    path: str
    sha256: str
    dataset_checksum: str
    network: str
    size: int
    precision: str
    cost: Cost
    metrics: Metrics
    without_overlap: Metrics | None

    def to_dict(self) -> dict[str, Any]:
        """Return the metrics and the cost as a dictionary for JSON."""
        without_overlap = self.without_overlap
        return {
            "name": self.name,
            "path": self.path,
            "sha256": self.sha256,
            "dataset_checksum": self.dataset_checksum,
            "network": self.network,
            "size": self.size,
            "precision": self.precision,
            **asdict(self.cost),
            **self.metrics.accuracies_to_dict(),
            "expected_calibration_error": self.metrics.calibration.error,
            "without_copies_in_training": (
                without_overlap.accuracies_to_dict() if without_overlap else None
            ),
        }


@dataclass(frozen=True)
class BenchmarkSettings:
    """Inference settings that all models of a comparison share.

    Attributes:
        batch_size: Number of images per forward pass.
        cores: Number of CPU cores that the process may use.
        flip_tta: Whether the probabilities are averaged over an image and its mirror image
            (test-time augmentation), which needs two forward passes.
    """

    batch_size: int
    cores: int
    flip_tta: bool


@dataclass(frozen=True)
class Comparison:
    """Results of several models on the same images.

    Attributes:
        models: Results of the models, in the order of the command line.
        pairs: Significance test of each pair of models.
        settings: Inference settings of all models.
        overlap_count: Number of images with an exact copy in the train split; None if the evaluated
            split is the train split, or if the train split is empty.
    """

    models: tuple[ModelResult, ...]
    pairs: tuple[PairwiseTest, ...]
    settings: BenchmarkSettings
    overlap_count: int | None

    @property
    def image_count(self) -> int:
        """Number of evaluated images."""
        return self.models[0].metrics.image_count

    @property
    def speed_ratios(self) -> list[float]:
        """Images per second of each model, divided by the first model's."""
        first = self.models[0].cost.images_per_second
        return [model.cost.images_per_second / first for model in self.models]

    def compute_accuracy_difference(self, pair: PairwiseTest) -> float:
        """Return the accuracy of the first model of a pair minus that of the second model.

        Args:
            pair: Significance test of two of the models.
        """
        return (pair.only_first - pair.only_second) / self.image_count

    def to_dict(self) -> dict[str, Any]:
        """Return the comparison as a dictionary for JSON."""
        return {
            **asdict(self.settings),
            "rows": self.image_count,
            "copies_in_training": self.overlap_count,
            "models": [
                {**model.to_dict(), "ratio_to_first": ratio}
                for model, ratio in zip(self.models, self.speed_ratios, strict=True)
            ],
            "pairs": [
                {
                    "first": self.models[pair.first].name,
                    "second": self.models[pair.second].name,
                    "difference": self.compute_accuracy_difference(pair),
                    "only_first": pair.only_first,
                    "only_second": pair.only_second,
                    "p": pair.p_value,
                    "p_holm": pair.adjusted_p_value,
                    "significant": pair.is_significant,
                }
                for pair in self.pairs
            ],
        }


def shorten_to_unique_names(folders: Sequence[Path]) -> list[str]:
    """Return a short unique name for each folder, which consists of its last path components.

    Args:
        folders: Absolute paths without repetitions.

    Returns:
        For each path, the shortest end that no other path shares, for example `a/run` and `b/run`
        for `/x/a/run` and `/x/b/run`.
    """
    return [
        _shorten_to_unique_name(folder, [path for path in folders if path != folder])
        for folder in folders
    ]


def _shorten_to_unique_name(path: Path, other_paths: Sequence[Path]) -> str:
    """Return the shortest end of a path that no other path shares, for example `a/run`.

    The whole path is returned if every shorter end is also that of another path.

    Args:
        path: Path to shorten to its last components.
        other_paths: Paths that must not have the same end.
    """
    for part_count in range(1, len(path.parts)):
        last_parts = path.parts[-part_count:]
        if all(other_path.parts[-part_count:] != last_parts for other_path in other_paths):
            return str(Path(*last_parts))
    return str(path)
