"""A model of a test's own as the run that `train` would have left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from fer_pipeline.data.normalization import Normalization
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo


def save(folder: Path, model: keras.Model, classes: Sequence[str], **known: Any) -> ModelInfo:
    """Writes a servable model, and what is known of it.

    Args:
        folder: The run's folder.
        model: From raw pixels to probabilities.
        classes: What it tells apart.
        known: Attributes of `RunInfo` for which the test has a value of its own.
    """
    folder.mkdir(parents=True, exist_ok=True)
    serving_model.save_model(model, folder / RunFile.MODEL)
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
        "sha256": trained_model.file_sha256(folder / RunFile.MODEL),
        "versions": {},
    }
    info = ModelInfo(classes=list(classes), **(values | known))
    (folder / RunFile.MODEL_INFO).write_text(info.model_dump_json(indent=2) + "\n")
    return info
