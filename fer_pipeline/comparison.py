"""Several models on the same images: how good each is, what it costs, which differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fer_pipeline.metrics import Metrics
from fer_pipeline.significance import Pair


@dataclass(frozen=True)
class Cost:
    """What a model's answer costs.

    Attributes:
        parameters: How many it has.
        multiply_adds: Of convolutions and dense layers, for one image and one forward pass; None
            where they are not known.
        uncounted_layers: The kinds of layers that have a kernel and yet count as 0.
        images_per_second: In one forward pass each, on the machine of the comparison.
    """

    parameters: int
    multiply_adds: int | None
    uncounted_layers: tuple[str, ...]
    images_per_second: float


@dataclass(frozen=True)
class Entry:
    """One model.

    Attributes:
        name: Unlike every other one's.
        path: The run's folder.
        sha256: Of its `model.keras`.
        dataset_checksum: Of the dataset that it was trained on.
        network: The network's name in the configuration.
        size: The side of the images that it takes, in pixels.
        precision: In which it computes, `float32` or `mixed_bfloat16`.
        cost: What its answer costs.
        result: How good it is on all images.
        new: The same on those that have no exact copy in the train split; None where these are all
            images or none, or where the dataset cannot tell.
    """

    name: str
    path: str
    sha256: str
    dataset_checksum: str
    network: str
    size: int
    precision: str
    cost: Cost
    result: Metrics
    new: Metrics | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what does not exist is None."""
        return {
            "name": self.name,
            "path": self.path,
            "sha256": self.sha256,
            "dataset_checksum": self.dataset_checksum,
            "network": self.network,
            "size": self.size,
            "precision": self.precision,
            **asdict(self.cost),
            **self.result.accuracies(),
            "expected_calibration_error": self.result.calibration.error,
            "without_copies_in_training": self.new.accuracies() if self.new else None,
        }


@dataclass(frozen=True)
class Conditions:
    """How the models were run, all of them alike.

    Attributes:
        batch_size: Images that go through at once.
        cores: How many the process may use.
        flip_tta: Whether probabilities are averaged over each image and its mirror image, which
            takes two forward passes.
    """

    batch_size: int
    cores: int
    flip_tta: bool


@dataclass(frozen=True)
class Comparison:
    """Several models on the same images.

    Attributes:
        entries: One by one, in the order in which they were named.
        pairs: Each with each other one.
        conditions: How they were run.
        copies: How many images have an exact copy in the train split; None where the dataset
            cannot tell.
    """

    entries: tuple[Entry, ...]
    pairs: tuple[Pair, ...]
    conditions: Conditions
    copies: int | None

    @property
    def rows(self) -> int:
        """How many images there are."""
        return self.entries[0].result.rows

    @property
    def ratios(self) -> list[float]:
        """How many times as many images a second each model does as the first."""
        first = self.entries[0].cost.images_per_second
        return [entry.cost.images_per_second / first for entry in self.entries]

    def difference(self, pair: Pair) -> float:
        """The accuracy of the pair's first model less that of its second, in -1..1."""
        return (pair.only_first - pair.only_second) / self.rows

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; what does not exist is None."""
        return {
            **asdict(self.conditions),
            "rows": self.rows,
            "copies_in_training": self.copies,
            "models": [
                {**entry.to_dict(), "ratio_to_first": ratio}
                for entry, ratio in zip(self.entries, self.ratios, strict=True)
            ],
            "pairs": [
                {
                    "first": self.entries[pair.first].name,
                    "second": self.entries[pair.second].name,
                    "difference": self.difference(pair),
                    "only_first": pair.only_first,
                    "only_second": pair.only_second,
                    "p": pair.p,
                    "p_holm": pair.adjusted,
                    "significant": pair.significant,
                }
                for pair in self.pairs
            ],
        }


def names(folders: Sequence[Path]) -> list[str]:
    """Names of folders, none of them twice.

    Args:
        folders: Absolute paths, no two alike.

    Returns:
        The last part of each; where several end alike, as many of its parts as tell it from them.
    """
    return [_name(folder, [other for other in folders if other != folder]) for folder in folders]


def _name(folder: Path, others: Sequence[Path]) -> str:
    for count in range(1, len(folder.parts)):
        own = folder.parts[-count:]
        if all(other.parts[-count:] != own for other in others):
            return str(Path(*own))
    return str(folder)
