"""Training runs in MLflow: parameters, the history, accuracies per class, and files.

MLflow is an optional dependency: it is imported only if the configuration enables it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import keras
from pydantic import BaseModel

from fer_pipeline.config import Config
from fer_pipeline.errors import ConfigError, StorageError
from fer_pipeline.io import storage
from fer_pipeline.learning.training.history import History, ValidationRound
from fer_pipeline.text import one_line

log = logging.getLogger(__name__)

_MAX_PARAMETERS_PER_CALL = 100
"""The limit of MLflow's server."""

_MAX_MESSAGE_CHARACTERS = 400


class MLflow(keras.callbacks.Callback):
    """Writes a run to MLflow: parameters, metrics of each round, accuracies per class, files.

    Metrics have the names of the columns of `history.csv`, parameters those of the configuration's
    keys. Metrics that cannot be sent are sent again with the next round: an unreachable server does
    not end the training.

    Attributes:
        run_id: ID of the run in MLflow; empty before training begins.
    """

    def __init__(
        self,
        record: Path,
        history: History,
        config: Config,
        *,
        name: str,
        dataset_checksum: str,
        resumed: bool,
    ) -> None:
        """Create MLflow's client; nothing is sent yet.

        Args:
            record: JSON file that stores the ID of the run in MLflow, so that a training run that
                was killed continues the same run.
            history: History of the run.
            config: The configuration; its section `tracking` names the store.
            name: Name of the run in MLflow.
            dataset_checksum: Checksum of the dataset.
            resumed: Whether to continue the run that the record names, if it names one.

        Raises:
            ConfigError: MLflow is not installed, or does not know the store that
                `tracking.mlflow.uri` names.
        """
        super().__init__()
        self.run_id = ""
        self._record, self._history, self._config = record, history, config
        self._name, self._checksum, self._resumed = name, dataset_checksum, resumed
        self._sent_rounds: set[tuple[str, int]] = set()
        self._client = _make_client(config.tracking.mlflow.uri)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Open a new run, or the run that is resumed, and send the history so far.

        Raises:
            ConfigError: The store cannot be reached or refuses the run.
            StorageError: The record cannot be written.
        """
        if self.run_id:
            return  # A further restart of the same run.
        try:
            self._open_run()
        except _list_store_errors() as error:
            raise _make_store_error(self._config.tracking.mlflow.uri, error) from error
        self._send_history()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Send the round, and earlier rounds that could not be sent."""
        self._send_history()

    def finish_run(self, accuracies: Mapping[str, float | None], files: Sequence[Path]) -> None:
        """Send the accuracies and files, and mark the run as finished.

        Args:
            accuracies: Accuracy of each class on validation, 0..1; None for a class without images.
            files: The model and the other files of the run.
        """
        metrics = {f"validation_accuracy/{name}": share for name, share in accuracies.items()}
        self._send_history()
        with _log_store_errors("the end of the run"):
            self._client.log_batch(self.run_id, metrics=_make_metrics(metrics, step=0))
            for file in files:
                self._client.log_artifact(self.run_id, str(file))
            self._client.set_terminated(self.run_id, "FINISHED")

    def fail_run(self) -> None:
        """Mark the run as failed; it can still be resumed."""
        if self.run_id:
            with _log_store_errors("the end of the run"):
                self._client.set_terminated(self.run_id, "FAILED")

    def _open_run(self) -> None:
        run = self._read_recorded_run() if self._resumed else None
        if run is None:
            run = self._client.create_run(self._get_experiment_id(), run_name=self._name)
            storage.write_text(self._record, json.dumps({"run_id": run.info.run_id}) + "\n")
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
        self.run_id = run.info.run_id
        for name in run.data.metrics:
            prefix, _, metric_name = f"/{name}".rpartition("/")
            if metric_name == "epoch":
                sent = self._client.get_metric_history(self.run_id, name)
                self._sent_rounds |= {(prefix.strip("/"), metric.step) for metric in sent}
        self._send_parameters(already_sent=run.data.params)

    def _read_recorded_run(self) -> Any:
        """Return the run that the record names; None if there is none."""
        from mlflow.exceptions import MlflowException

        if not storage.exists(self._record):
            return None
        try:
            return self._client.get_run(json.loads(storage.read_text(self._record))["run_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            log.warning("MLflow has no run with the ID in %s; creating a new one", self._record)
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self._record}: is damaged; delete it: {error!r}") from error

    def _get_experiment_id(self) -> str:
        name = self._config.tracking.mlflow.experiment
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return self._client.create_experiment(name)
        return experiment.experiment_id

    def _send_parameters(self, already_sent: Mapping[str, str]) -> None:
        """Send the parameters that MLflow does not have yet: it lets no parameter be changed."""
        from mlflow.entities import Param

        parameters = {"dataset_checksum": self._checksum, **dict(_list_parameters(self._config))}
        new = [Param(name, text) for name, text in parameters.items() if name not in already_sent]
        for start in range(0, len(new), _MAX_PARAMETERS_PER_CALL):
            part = new[start : start + _MAX_PARAMETERS_PER_CALL]
            self._client.log_batch(self.run_id, params=part)

    def _send_history(self) -> None:
        with _log_store_errors("a round, which is sent again after the next"):
            for validation_round in self._history.rounds:
                self._send_round(validation_round)

    def _send_round(self, validation_round: ValidationRound) -> None:
        step, restart = validation_round.step, validation_round.restart
        prefix = f"restart_{restart}" if restart else ""
        if (prefix, step) in self._sent_rounds:
            return
        columns = asdict(validation_round)
        for name in ("step", "restart", "rows"):
            del columns[name]
        metrics = {f"{prefix}/{name}".lstrip("/"): cell for name, cell in columns.items()}
        # One transaction: MLflow has either all metrics of a round or none.
        self._client.log_batch(self.run_id, metrics=_make_metrics(metrics, step))
        self._sent_rounds.add((prefix, step))


def _make_client(uri: str | None) -> Any:
    # MLflow reads both at its import. It sends usage statistics unless this is set, and its default
    # number of retries would delay the training for minutes after each round.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        import mlflow
    except ImportError:
        raise ConfigError(
            "tracking.mlflow: MLflow is not installed; pip install 'fer_pipeline[mlflow]',"
            " or leave it out with tracking.mlflow.enabled=false"
        ) from None
    for noisy in ("mlflow", "alembic"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    try:
        return mlflow.MlflowClient(uri)
    except _list_store_errors() as error:
        raise _make_store_error(uri, error) from error


def _list_store_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a store; ImportError if its database driver is not installed."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, ImportError


def _make_store_error(uri: str | None, error: Exception) -> ConfigError:
    store = uri or "the default store"
    return ConfigError(_format_message(f"tracking.mlflow.uri: {store} cannot be used: {error}"))


def _format_message(text: str) -> str:
    """Return a message on one line, without user names and passwords of URIs."""
    return re.sub(r"//[^/@ ]*@", "//", one_line(text))[:_MAX_MESSAGE_CHARACTERS]


@contextlib.contextmanager
def _log_store_errors(content: str) -> Iterator[None]:
    """Log errors of the store within the context as warnings: they must not end the training.

    Args:
        content: What was to be sent, for the message.
    """
    try:
        yield
    except _list_store_errors() as error:
        log.warning("MLflow did not accept %s: %s", content, _format_message(str(error)))


def _make_metrics(metrics: Mapping[str, float | None], step: int) -> list[Any]:
    from mlflow.entities import Metric

    timestamp = int(time.time() * 1000)
    return [
        Metric(name, float(metric), timestamp, step)
        for name, metric in metrics.items()
        if metric is not None
    ]


def _list_parameters(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the configuration's keys and values, without `tracking`, which may hold a password."""
    plain = section.model_dump(mode="json")
    for name in type(section).model_fields:
        member = getattr(section, name)
        if isinstance(member, BaseModel):
            if name != "tracking":
                yield from _list_parameters(member, f"{prefix}{name}.")
        else:
            setting = plain[name]
            yield f"{prefix}{name}", setting if isinstance(setting, str) else json.dumps(setting)
