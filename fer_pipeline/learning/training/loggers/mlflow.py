"""MLflow log of a training run: parameters, history, per-class accuracies and files.

MLflow is an optional dependency. It is imported only if the configuration enables it.
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
from fer_pipeline.extras import suggest_install
from fer_pipeline.io import storage
from fer_pipeline.learning.training.history import History, HistoryEntry
from fer_pipeline.text import one_line

log = logging.getLogger(__name__)

_MAX_PARAMETERS_PER_CALL = 100
"""Limit of MLflow's server."""

_MAX_MESSAGE_CHARACTERS = 400


class MLflow(keras.callbacks.Callback):
    """A callback that logs a run to MLflow: parameters, metrics, per-class accuracies and files.

    The names of the metrics are the columns of `history.csv`, and the names of the parameters are
    the configuration keys. If metrics cannot be sent, they are sent again after the next
    validation, so that an unreachable server does not end the training.

    Attributes:
        run_id: ID of the run in MLflow; empty before training begins.
    """

    def __init__(
        self,
        run_id_path: Path,
        history: History,
        config: Config,
        *,
        name: str,
        dataset_checksum: str,
        is_resumed: bool,
    ) -> None:
        """Create the callback and MLflow's client; nothing is sent yet.

        Args:
            run_id_path: JSON file that stores the ID of the run in MLflow. A resumed run
                continues the MLflow run with this ID.
            history: History of the run.
            config: The configuration; its section `tracking` contains the address of the store.
            name: Name of the run in MLflow.
            dataset_checksum: Checksum of the dataset, logged as a parameter.
            is_resumed: Whether to continue the MLflow run whose ID is in `run_id_path`, if there is
                one.

        Raises:
            ConfigError: MLflow is not installed, or does not support the store in
                `tracking.mlflow.uri`.
        """
        super().__init__()
        self.run_id = ""
        self._run_id_path, self._history, self._config = run_id_path, history, config
        self._name, self._checksum, self._is_resumed = name, dataset_checksum, is_resumed
        self._sent_entries: set[tuple[str, int]] = set()
        self._client = _make_client(config.tracking.mlflow.uri)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Create or reopen the MLflow run, and send the history so far.

        The training loop calls this method at the start of each restart. Only the first call has an
        effect.

        Raises:
            ConfigError: The store cannot be reached or refuses the run.
            StorageError: The file with the ID of the MLflow run is damaged, or cannot be read or
                written.
        """
        if self.run_id:
            return  # This is a further restart of the same run.
        try:
            self._open_run()
        except _list_store_errors() as error:
            raise _make_store_error(self._config.tracking.mlflow.uri, error) from error
        self._send_history()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Send the metrics of the last validation, and earlier metrics that could not be sent.

        The training loop calls this method after each validation.
        """
        self._send_history()

    def finish_run(self, accuracies: Mapping[str, float | None], files: Sequence[Path]) -> None:
        """Send the per-class accuracies and the files, and mark the MLflow run as finished.

        Metrics of the history that could not be sent before are sent first.

        Args:
            accuracies: Accuracy of each class on the validation split, in [0, 1]; None for a class
                without images.
            files: Files to send, such as the model.
        """
        metrics = {f"validation_accuracy/{name}": accuracy for name, accuracy in accuracies.items()}
        self._send_history()
        with _log_store_errors("the end of the run"):
            self._client.log_batch(self.run_id, metrics=_make_metrics(metrics, step=0))
            for file in files:
                self._client.log_artifact(self.run_id, str(file))
            self._client.set_terminated(self.run_id, "FINISHED")

    def mark_run_failed(self) -> None:
        """Mark the MLflow run as failed, if it was opened; it can still be resumed."""
        if self.run_id:
            with _log_store_errors("the end of the run"):
                self._client.set_terminated(self.run_id, "FAILED")

    def _open_run(self) -> None:
        """Create or reopen the MLflow run, and send the parameters that it does not contain yet.

        The ID of a new run is written to a file. The history entries that a reopened run contains
        are marked as sent.
        """
        run = self._get_stored_run() if self._is_resumed else None
        if run is None:
            run = self._client.create_run(self._get_or_create_experiment_id(), run_name=self._name)
            storage.write_text(self._run_id_path, json.dumps({"run_id": run.info.run_id}) + "\n")
        else:
            self._client.update_run(run.info.run_id, status="RUNNING")
        self.run_id = run.info.run_id
        for name in run.data.metrics:
            prefix, _, metric_name = f"/{name}".rpartition("/")
            if metric_name == "epoch":
                sent = self._client.get_metric_history(self.run_id, name)
                self._sent_entries |= {(prefix.strip("/"), metric.step) for metric in sent}
        self._send_parameters(already_sent=run.data.params)

    def _get_stored_run(self) -> Any:
        """Return the MLflow run whose ID is stored in `self._run_id_path`.

        Returns:
            The run; None if there is no such file, or if MLflow has no run with this ID.

        Raises:
            StorageError: The file is damaged or cannot be read.
            MlflowException: The store fails.
        """
        from mlflow.exceptions import MlflowException

        if not storage.exists(self._run_id_path):
            return None
        try:
            return self._client.get_run(json.loads(storage.read_text(self._run_id_path))["run_id"])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            log.warning(
                "MLflow has no run with the ID in %s; creating a new one", self._run_id_path
            )
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise StorageError(f"{self._run_id_path}: is damaged; delete it: {error!r}") from error

    def _get_or_create_experiment_id(self) -> str:
        """Return the ID of the configured experiment, which is created if it does not exist."""
        name = self._config.tracking.mlflow.experiment
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            return self._client.create_experiment(name)
        return experiment.experiment_id

    def _send_parameters(self, already_sent: Mapping[str, str]) -> None:
        """Send the parameters that the MLflow run does not contain yet.

        The others are not sent again, because MLflow refuses to change a parameter.

        Args:
            already_sent: Parameters that the MLflow run contains.
        """
        from mlflow.entities import Param

        parameters = {"dataset_checksum": self._checksum, **dict(_iterate_parameters(self._config))}
        new = [Param(name, text) for name, text in parameters.items() if name not in already_sent]
        for start in range(0, len(new), _MAX_PARAMETERS_PER_CALL):
            part = new[start : start + _MAX_PARAMETERS_PER_CALL]
            self._client.log_batch(self.run_id, params=part)

    def _send_history(self) -> None:
        """Send all metrics that have not been sent yet; if the store fails, only log a warning."""
        with _log_store_errors("metrics, which are sent again after the next validation"):
            for entry in self._history.entries:
                self._send_entry(entry)

    def _send_entry(self, entry: HistoryEntry) -> None:
        """Send the metrics in a history entry, unless they have been sent already."""
        step, restart = entry.step, entry.restart
        prefix = f"restart_{restart}" if restart else ""
        if (prefix, step) in self._sent_entries:
            return
        columns = asdict(entry)
        for name in ("step", "restart", "rows"):
            del columns[name]
        metrics = {f"{prefix}/{name}".lstrip("/"): cell for name, cell in columns.items()}
        # This call is one transaction: MLflow gets either all metrics of an entry or no metric.
        self._client.log_batch(self.run_id, metrics=_make_metrics(metrics, step))
        self._sent_entries.add((prefix, step))


def _make_client(uri: str | None) -> Any:
    """Import MLflow without usage statistics and with few retries, and return a client.

    Both are set by environment variables, unless the user has set these variables already.

    Args:
        uri: Address of the store; None for MLflow's default store.

    Raises:
        ConfigError: MLflow is not installed, or does not support the store.
    """
    # MLflow reads both variables at its import. It would send usage statistics, and its default
    # number of retries would delay the training for minutes after each validation.
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    try:
        import mlflow
    except ImportError:
        raise ConfigError(
            f"tracking.mlflow: MLflow is not installed; {suggest_install('mlflow')},"
            " or leave it out with tracking.mlflow.enabled=false"
        ) from None
    for logger_name in ("mlflow", "alembic"):
        logging.getLogger(logger_name).setLevel(logging.WARNING)
    try:
        return mlflow.MlflowClient(uri)
    except _list_store_errors() as error:
        raise _make_store_error(uri, error) from error


def _list_store_errors() -> tuple[type[Exception], ...]:
    """Return the classes of the exceptions that MLflow raises if its store fails.

    ImportError is one of these classes, because the driver of a database may be missing.
    """
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    return MlflowException, SQLAlchemyError, OSError, ImportError


def _make_store_error(uri: str | None, error: Exception) -> ConfigError:
    """Return the error for an MLflow tracking store that cannot be used."""
    store = uri or "the default store"
    return ConfigError(_format_message(f"tracking.mlflow.uri: {store} cannot be used: {error}"))


def _format_message(text: str) -> str:
    """Return a message as one line of limited length, without user names and passwords in URIs."""
    return re.sub(r"//[^/@ ]*@", "//", one_line(text))[:_MAX_MESSAGE_CHARACTERS]


@contextlib.contextmanager
def _log_store_errors(content: str) -> Iterator[None]:
    """Log an error of MLflow's store in the `with` block as a warning, and suppress it.

    The training can then continue.

    Args:
        content: What the block sends, as a noun phrase for the warning.
    """
    try:
        yield
    except _list_store_errors() as error:
        log.warning("MLflow did not accept %s: %s", content, _format_message(str(error)))


def _make_metrics(metrics: Mapping[str, float | None], step: int) -> list[Any]:
    """Return MLflow's metric objects for the metrics that are not None.

    Args:
        metrics: Value of each metric, by name.
        step: Training step to which the metrics belong.
    """
    from mlflow.entities import Metric

    timestamp = int(time.time() * 1000)
    return [
        Metric(name, float(metric), timestamp, step)
        for name, metric in metrics.items()
        if metric is not None
    ]


def _iterate_parameters(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the configuration's dotted keys and their values as text.

    The section `tracking` is left out, because it may contain a password.

    Args:
        section: Section of the configuration.
        prefix: Dotted key of the section, with a dot at its end; empty for the whole configuration.
    """
    plain = section.model_dump(mode="json")
    for name in type(section).model_fields:
        subsection = getattr(section, name)
        if isinstance(subsection, BaseModel):
            if name != "tracking":
                yield from _iterate_parameters(subsection, f"{prefix}{name}.")
        else:
            setting = plain[name]
            yield f"{prefix}{name}", setting if isinstance(setting, str) else json.dumps(setting)
