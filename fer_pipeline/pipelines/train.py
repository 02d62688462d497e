"""Training of a network on a dataset, in one process.

A run trains the network `training.restarts` times, each time from the same initial weights, with a
different sample order. Each of these trainings is a restart.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from fer_pipeline.config import Config
from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo
from fer_pipeline.learning.training import history
from fer_pipeline.pipelines.prepare_run import prepare_run


def train(
    dataset: str, output: str, config: Config, *, overwrite: bool = False, resume: bool = False
) -> ModelInfo:
    """Train a network on a dataset, and write the files of the run.

    `model.json` is written last. A folder without it holds no finished run.

    Args:
        dataset: Folder of the dataset.
        output: Folder of the run.
        config: Configuration.
        overwrite: Whether an existing run, finished or unfinished, may be replaced.
        resume: Whether to continue an unfinished run. A finished run is not trained again. An
            unfinished run without a checkpoint starts at step 0.

    Returns:
        Description of the trained model, which is the content of `model.json`.

    Raises:
        DatasetError: The dataset's folder is not a dataset, is damaged or has no training rows, or
            the resumed run was started with a different dataset.
        ConfigError: The network or an option of it does not exist, or the resumed run was started
            with a different configuration.
        RunError: The loss or a weight is not finite, or the checkpoint is damaged.
        StorageError: The folder holds a run that may not be replaced, or files that do not belong
            to a run.
    """
    prepared = prepare_run(dataset, output, config, overwrite=overwrite, resume=resume)
    if prepared is None:
        return trained_model.read_model_info(parse_path(output))
    # This imports TensorFlow, which takes seconds. All mistakes that can be found without it have
    # been reported by now.
    from fer_pipeline.pipelines import run_training

    run = run_training.build_run(prepared)
    with add_resume_hint_to_interrupt(prepared.folder), prepared.lock_for_writing():
        run_training.run_training(run, prepared.checkpoint, is_resumed=resume)
    return trained_model.read_model_info(prepared.folder)


@contextlib.contextmanager
def add_resume_hint_to_interrupt(folder: Path) -> Iterator[None]:
    """Give a KeyboardInterrupt in the `with` block a message that says what --resume will do.

    Args:
        folder: Folder of the run.
    """
    try:
        yield
    except KeyboardInterrupt:
        hint = "--resume continues the run"
        if not storage.is_file(folder / RunFile.CHECKPOINT):
            hint = "there is no checkpoint yet, so --resume starts the run again"
        raise KeyboardInterrupt(hint) from None


def format_report(model_info: ModelInfo, output: str) -> str:
    """Return the report of the job: the history, the best validation, and the model's path.

    Args:
        model_info: Description of the trained model.
        output: Folder of the run.
    """
    folder = parse_path(output)
    entries = history.read_history(folder / RunFile.HISTORY)
    accuracy = (
        "not validated" if model_info.best_accuracy is None else f"{model_info.best_accuracy:.2%}"
    )
    best_step = f"step {model_info.best_step:,}"
    if any(row.restart for row in entries):
        best_step = f"restart {model_info.best_restart}, {best_step}"
    return "\n".join(
        [
            history.format_history(entries),
            "",
            f"{model_info.network}, {model_info.parameters:,} parameters; kept: {best_step},"
            f" validation accuracy {accuracy}; temperature {model_info.temperature:.3f}",
            f"model {folder / RunFile.MODEL}",
        ]
    )
