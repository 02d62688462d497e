"""What happens after each round of training, as Keras callbacks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

from fer_pipeline.learning.training.history import History, Round
from fer_pipeline.learning.training.optimization import better

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Kept:
    """Weights that are kept, and what is known of them.

    Attributes:
        value: Of the metric that decides; None without validation.
        made: The round after which they stood so.
        confusion: On validation, how many of each class were taken for each; None without.
        weights: In the order of the model's.
    """

    value: float | None
    made: Round
    confusion: list[list[int]] | None
    weights: list[npt.NDArray[Any]]


class BestWeights(keras.callbacks.Callback):
    """Keeps the weights that are best by a metric; without validation or a metric, the last ones.

    They stay in memory and go into the checkpoint: Keras's ModelCheckpoint writes in place, and
    killed meanwhile leaves half a model.

    Attributes:
        kept: The weights; None before the first round.
    """

    def __init__(
        self,
        metric: str,
        history: History,
        confusion: Callable[[], npt.NDArray[np.int64] | None],
        *,
        validated: bool,
    ) -> None:
        """Takes what decides.

        Args:
            metric: Its name in the logs of a round, or `last`.
            history: Of the run.
            confusion: What the last validation found.
            validated: Whether there is a validation split.
        """
        super().__init__()
        self.kept: Kept | None = None
        self._metric, self._history, self._confusion = metric, history, confusion
        self._decides = metric != "last" and (validated or not metric.startswith("val_"))
        self._validated = validated

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Keeps the weights if they are the best so far."""
        if not self._decides:
            return
        value = (logs or {})[self._metric]
        # A metric of nothing, such as the accuracy of no images, is no better than anything.
        if self.kept is None or self._is_better(value, self.kept.value):
            self._keep(value)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Keeps the last weights where none could be the best."""
        if not self._decides:
            if not self._validated:
                log.info("there is no validation split: the model is the last one")
            self._keep(None)

    def _is_better(self, value: float, old: float | None) -> bool:
        if old is None:
            return True
        return value < old if better(self._metric) == "min" else value > old

    def _keep(self, value: float | None) -> None:
        found = self._confusion()
        self.kept = Kept(
            value=value,
            made=self._history.rounds[-1],
            confusion=None if found is None else found.tolist(),
            weights=self.model.get_weights(),
        )


class Report(keras.callbacks.Callback):
    """Tells each round in the log."""

    def __init__(self, history: History) -> None:
        """Takes the history, which has the numbers."""
        super().__init__()
        self._history = history

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Tells the round."""
        tell(self._history.rounds[-1])


def tell(made: Round) -> None:
    """Tells a round in the log."""
    log.info("%s", _line(made))


def _line(made: Round) -> str:
    parts = [f"step {made.step:,}, epoch {made.epoch}"]
    if made.restart:
        parts[0] = f"restart {made.restart}, {parts[0]}"
    for name in ("minibatch", "validation"):
        loss, accuracy = getattr(made, f"{name}_loss"), getattr(made, f"{name}_accuracy")
        if accuracy is not None:
            parts.append(f"{name} loss {loss:.4f}, accuracy {accuracy:.2%}")
    return "; ".join(parts)
