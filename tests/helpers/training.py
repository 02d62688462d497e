"""Short trainings on the easy dataset, and the files and weights that they leave."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt
import pytest

from fer_pipeline.config import Config, load_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.manifest import DataFile
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.training.history import History, HistoryEntry
from fer_pipeline.learning.training.loop import StepSchedule, TrainingLoop
from fer_pipeline.learning.training.losses import ClassificationLoss
from fer_pipeline.learning.training.trainer import Trainer, enable_determinism

ROOT = Path(__file__).resolve().parents[2]
SIZE = 16
CLASSES = ["angry", "happy", "sad"]
CHECKSUM = "fedcba9876543210"
TRAIN_ROWS = 115  # of the easy dataset
VALIDATION_ROWS = 40


def make_config(
    *overrides: str, seed: int = 0, batch_size: int = 23, steps: int | None = 10
) -> Config:
    """Return a training configuration; by default an epoch has five steps."""
    length = [f"training.steps={steps}"] if steps else []
    return load_config(
        None,
        [
            f"seed={seed}",
            f"loader.batch_size={batch_size}",
            "model.options.hidden=8",
            "training.optimizer.learning_rate=0.02",
            *length,
            *overrides,
        ],
    )


def make_loader(
    dataset: Path,
    split: str = "train",
    batch_size: int = 23,
    *,
    shuffle: bool = False,
    seed: int = 0,
) -> BatchLoader:
    """Return a loader of a split of a stored dataset."""
    options = LoaderOptions(batch_size, shuffle=shuffle, seed=seed)
    return BatchLoader(StoredDataset.open(dataset), Split(split), options)


def make_trainer(learning_rate: float = 0.02, seed: int = 0) -> Trainer:
    """Return a trainer of a small network with plain gradient descent."""
    enable_determinism(seed)
    network = registry.build_network("system_a", SIZE, len(CLASSES), {"hidden": 8})
    model = serving_model.build_serving_model(network, SIZE, Normalization.centered())
    return Trainer(
        network, model, keras.optimizers.SGD(learning_rate), ClassificationLoss(len(CLASSES))
    )


def run_loop(
    trainer: Trainer,
    folder: Path,
    dataset: Path,
    schedule: StepSchedule,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    *,
    validation: str | None = "validation",
    **options: Any,
) -> list[HistoryEntry]:
    """Train on the train split and return the history, which is also written to the folder.

    Args:
        trainer: Trainer of the network.
        folder: Folder of `history.csv`.
        dataset: Folder of the dataset.
        schedule: Steps of the training and of its validations.
        callbacks: Callbacks of the loop.
        validation: Split of the validations, or None.
        options: Arguments of `make_loader` for the train split.
    """
    history = History.create(folder / "history.csv")
    validation_loader = make_loader(dataset, validation) if validation else None
    train_loader = make_loader(dataset, **options)
    TrainingLoop(trainer, train_loader, validation_loader, schedule, history, callbacks).run()
    return history.entries


def read_csv_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by column name."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_top_files(folder: Path) -> dict[str, bytes]:
    """Return the content of the files of a folder, without its subfolders."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def load_weights(run: Path) -> list[npt.NDArray[np.float32]]:
    """Return the weights of the model of a finished run."""
    return TrainedModel.open(run).load_network().get_weights()


def have_same_bits(
    first: Sequence[npt.NDArray[np.float32]], second: Sequence[npt.NDArray[np.float32]]
) -> bool:
    """Return whether two lists of weights are equal in each bit."""
    return all(a.tobytes() == b.tobytes() for a, b in zip(first, second, strict=True))


class RecordingCallback(keras.callbacks.Callback):
    """Records the calls of the training loop.

    Attributes:
        epochs: Logs of each epoch.
        events: Calls, in order: "begin", ("epoch", n), ("end", n), "end".
        weights: Weights of the model at the end of each epoch.
    """

    def __init__(self) -> None:
        """Record nothing yet."""
        super().__init__()
        self.epochs: list[dict[str, float]] = []
        self.events: list[str | tuple[str, int]] = []
        self.weights: list[list[npt.NDArray[np.float32]]] = []

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Record the begin of the training."""
        self.events.append("begin")

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Record the begin of an epoch."""
        self.events.append(("epoch", epoch))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Record the end of an epoch, its logs and the weights."""
        self.events.append(("end", epoch))
        self.epochs.append(dict(logs or {}))
        self.weights.append(self.model.get_weights())

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Record the end of the training."""
        self.events.append("end")


def change_row_count(change: int) -> Callable[[DataFile], DataFile]:
    """Return a function that changes the row count of a split's first file in the manifest."""

    def change_entry(file: DataFile) -> DataFile:
        rows = file.rows + change * ("part-00000" in file.path)
        return file.model_copy(update={"rows": rows})

    return change_entry


def get_message(error: pytest.ExceptionInfo[BaseException]) -> str:
    """Return the message of an error, which must have one line."""
    message = str(error.value)
    assert "\n" not in message
    return message
