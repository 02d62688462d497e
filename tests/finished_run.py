"""A model of a test's own as the run that `train` would have left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from fer_pipeline.learning.model import bundle, run_folder
from fer_pipeline.learning.model.run_folder import RunInfo
from fer_pipeline.pixels import Normalization


def save(folder: Path, model: keras.Model, classes: Sequence[str], **known: Any) -> RunInfo:
    """Writes a servable model, and what is known of it.

    Args:
        folder: The run's folder.
        model: From raw pixels to probabilities.
        classes: What it tells apart.
        known: Attributes of `RunInfo` for which the test has a value of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    bundle.save(model, folder / run_folder.MODEL)
    values: dict[str, Any] = {
        "size": model.input_shape[1],
        "normalization": Normalization.centered(),
        "dataset_checksum": "fedcba9876543210",
        "network": "handmade",
        "options": {},
        "parameters": model.count_params(),
        "best_step": 7,
        "best_accuracy": None,
        "seed": 1,
        "sha256": run_folder.digest(folder / run_folder.MODEL),
        "versions": {},
    }
    info = RunInfo(classes=list(classes), **(values | known))
    (folder / run_folder.INFO).write_text(info.model_dump_json(indent=2) + "\n")
    return info
