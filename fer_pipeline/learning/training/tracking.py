"""Runs in MLflow: parameters, the history, results per class, files.

MLflow is an extra: it is imported where a configuration asks for it.
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

from fer_pipeline import storage
from fer_pipeline.config import Config
from fer_pipeline.errors import ConfigError, StorageError
from fer_pipeline.learning.training.history import History

log = logging.getLogger(__name__)

# More than this a server of MLflow refuses.
_PARAMETERS_AT_ONCE = 100


class MLflow(keras.callbacks.Callback):
    """Writes a run to MLflow: parameters, metrics of each round, results per class, files.

    Metrics have the names of `history.csv`, parameters those of the configuration. What cannot be
    sent while training goes on is kept and sent with the next round: training does not fail by it.

    Attributes:
        run_id: Of the run in MLflow; empty before training begins.
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
        """Takes what is written; nothing is sent yet.

        Args:
            record: The file that keeps the id of the run in MLflow, so that a training run that was
                killed goes on in it.
            history: Of the run.
            config: The configuration; its `tracking` says where.
            name: Of the run in MLflow.
            dataset_checksum: Of the dataset.
            resumed: Whether this goes on with the run that the record names, if it names one.

        Raises:
            ConfigError: MLflow is not installed, or `tracking.mlflow.uri` is none of its stores.
        """
        super().__init__()
        self.run_id = ""
        self._record, self._history, self._config = record, history, config
        self._name, self._checksum, self._resumed = name, dataset_checksum, resumed
        self._told: set[tuple[str, int]] = set()
        self._client = _client(config.tracking.mlflow.uri)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Opens the run, a new one or the one that is resumed, and sends what is known already.

        Raises:
            ConfigError: The store cannot be reached or does not take it.
            StorageError: The record cannot be written.
        """
        if self.run_id:
            return  # A further restart of the same run.
        try:
            self._open()
        except _errors() as error:
            raise _refusal(self._config.tracking.mlflow.uri, error) from error
        self._send()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Sends the round, and those before it that could not be sent."""
        self._send()

    def finish(self, accuracies: Mapping[str, float | None], files: Sequence[Path]) -> None:
        """Ends the run well.

        Args:
            accuracies: Of each class on validation, 0..1; None for one without images.
            files: The model, and whatever else belongs to the run.
        """
        found = {f"validation_accuracy/{name}": value for name, value in accuracies.items()}
        self._send()
        with _told_as_warning("the end of the run"):
            self._client.log_batch(self.run_id, metrics=_metrics(found, step=0))
            for file in files:
                self._client.log_artifact(self.run_id, str(file))
            self._client.set_terminated(self.run_id, "FINISHED")

    def fail(self) -> None:
        """Ends the run as one that failed; it can be resumed all the same."""
        if self.run_id:
            with _told_as_warning("the end of the run"):
                self._client.set_terminated(self.run_id, "FAILED")

    def _open(self) -> None:
        run = self._recorded() if self._resumed else None
        if run is None:
            run = self._client.create_run(self._experiment(), run_name=self._name)
            storage.write_text(self._record, json.dumps({"run_id": run.info.run_id}) + "\n")
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
        self.run_id = run.info.run_id
        for name in run.data.metrics:
            prefix, _, measure = f"/{name}".rpartition("/")
            if measure == "epoch":
                told = self._client.get_metric_history(self.run_id, name)
                self._told |= {(prefix.strip("/"), metric.step) for metric in told}
        self._send_parameters(known=run.data.params)

    def _recorded(self) -> Any:
        """The run that the record names, if there is one."""
        from mlflow.exceptions import MlflowException

        if not storage.exists(self._record):
            return None
        try:
            return self._client.get_run(json.loads(storage.read_text(self._record))["run_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            log.warning("MLflow has no run of %s any more; a new one is begun", self._record)
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self._record}: is damaged; delete it: {error!r}") from error

    def _experiment(self) -> str:
        name = self._config.tracking.mlflow.experiment
        found = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if found is None else found.experiment_id

    def _send_parameters(self, known: Mapping[str, str]) -> None:
        """Sends those that are not known yet: MLflow lets none be changed."""
        from mlflow.entities import Param

        given = {"dataset_checksum": self._checksum, **dict(_parameters(self._config))}
        new = [Param(name, value) for name, value in given.items() if name not in known]
        for start in range(0, len(new), _PARAMETERS_AT_ONCE):
            part = new[start : start + _PARAMETERS_AT_ONCE]
            self._client.log_batch(self.run_id, params=part)

    def _send(self) -> None:
        with _told_as_warning("a round, which is sent again after the next"):
            for made in self._history.rounds:
                restart = f"restart_{made.restart}" if made.restart else ""
                if (restart, made.step) in self._told:
                    continue
                numbers = {
                    k: v for k, v in asdict(made).items() if k not in ("step", "restart", "rows")
                }
                named = {f"{restart}/{name}".lstrip("/"): v for name, v in numbers.items()}
                # In one transaction: none of a round is there without the others.
                self._client.log_batch(self.run_id, metrics=_metrics(named, made.step))
                self._told.add((restart, made.step))


def _client(uri: str | None) -> Any:
    # MLflow tells its makers how it is used, unless this stands before its import. And a server
    # that does not answer must not hold up the training for minutes after each round.
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
    except _errors() as error:
        raise _refusal(uri, error) from error


def _errors() -> tuple[type[Exception], ...]:
    """Whatever a store raises: ImportError where it needs a driver that is not installed."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, ImportError


def _refusal(uri: str | None, error: Exception) -> ConfigError:
    return ConfigError(
        _said(f"tracking.mlflow.uri: {uri or 'the default store'} cannot be used: {error}")
    )


def _said(text: str) -> str:
    """A message on one line, without what a URI says of user and password."""
    return re.sub(r"//[^/@ ]*@", "//", " ".join(text.split()))[:400]


@contextlib.contextmanager
def _told_as_warning(what: str) -> Iterator[None]:
    """What MLflow does not take is no reason to end a training run."""
    try:
        yield
    except _errors() as error:
        log.warning("MLflow did not take %s: %s", what, _said(str(error)))


def _metrics(numbers: Mapping[str, float | None], step: int) -> list[Any]:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    return [Metric(k, float(v), now, step) for k, v in numbers.items() if v is not None]


def _parameters(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """The configuration's keys and values; without `tracking`, which may hold a password."""
    plain = section.model_dump(mode="json")
    for name in type(section).model_fields:
        value = getattr(section, name)
        if isinstance(value, BaseModel):
            if name != "tracking":
                yield from _parameters(value, f"{prefix}{name}.")
        else:
            text = plain[name]
            yield f"{prefix}{name}", text if isinstance(text, str) else json.dumps(text)
