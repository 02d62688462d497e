"""A Keras callback that keeps the best weights of a run.

The training loop calls `on_epoch_end` after each validation.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from fer_pipeline.learning.training.history import History, HistoryEntry
from fer_pipeline.learning.training.optimizers import get_monitor_mode

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class BestSnapshot:
    """The best weights of a run so far, and the validation in which the network had these weights.

    Attributes:
        metric: Value of the metric that selects the weights; None if no metric selects them and the
            last weights are kept.
        entry: History entry of the validation in which the network had these weights.
        confusion: Confusion matrix on the validation split; None if there is no validation split.
        weights: Arrays in the order of the model's weights.
    """

    metric: float | None
    entry: HistoryEntry
    confusion: list[list[int]] | None
    weights: list[npt.NDArray[Any]]


class BestWeights(keras.callbacks.Callback):
    """A callback that keeps the weights with the best value of a metric.

    If no metric is configured, or the metric needs a validation split and there is none, it keeps
    the last weights.

    The weights are kept in memory and written to the checkpoint. Keras's ModelCheckpoint is not
    used, because it overwrites its file in place: if the process is killed meanwhile, the file is
    incomplete.

    Attributes:
        snapshot: The weights that are kept; None until then. If no metric selects the weights, they
            are kept only at the end of the training.
    """

    def __init__(
        self,
        metric: str,
        history: History,
        get_confusion: Callable[[], npt.NDArray[np.int64] | None],
        *,
        has_validation: bool,
    ) -> None:
        """Create the callback.

        Args:
            metric: Name of the metric that selects the weights, a key of the logs that Keras passes
                to callbacks; or `last` to keep the last weights.
            history: History of the run.
            get_confusion: Function that returns the confusion matrix of the last validation; None
                before the first one.
            has_validation: Whether there is a validation split.
        """
        super().__init__()
        self.snapshot: BestSnapshot | None = None
        self._metric, self._history, self._get_confusion = metric, history, get_confusion
        self._has_validation = has_validation
        self._selects_by_metric = metric != "last" and (
            has_validation or not metric.startswith("val_")
        )

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the current weights if the metric has its best value so far.

        The training loop calls this method after each validation. It does nothing if no metric
        selects the weights.
        """
        if not self._selects_by_metric:
            return
        metric = (logs or {})[self._metric]
        # A comparison with NaN is false. The accuracy is NaN if there are no images.
        if self.snapshot is None or self._is_better(metric, self.snapshot.metric):
            self._take_snapshot(metric)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Keep the weights of the last step, if no metric selects the weights."""
        if not self._selects_by_metric:
            if not self._has_validation:
                log.info("there is no validation split: keeping the weights of the last step")
            self._take_snapshot(None)

    def _is_better(self, metric: float, best: float | None) -> bool:
        """Return whether a value of the metric is better than the best value so far.

        Args:
            metric: The value; NaN is never better than a number.
            best: The best value so far; None if there is no earlier value. Every value is better
                than None.
        """
        if best is None:
            return True
        return metric < best if get_monitor_mode(self._metric) == "min" else metric > best

    def _take_snapshot(self, metric: float | None) -> None:
        """Keep the current weights, and drop those that were kept before.

        The history entry and the confusion matrix of the last validation are kept with them.

        Args:
            metric: Value of the metric that selects the weights; None if no metric selects them.
        """
        confusion = self._get_confusion()
        self.snapshot = BestSnapshot(
            metric=metric,
            entry=self._history.entries[-1],
            confusion=None if confusion is None else confusion.tolist(),
            weights=self.model.get_weights(),
        )
