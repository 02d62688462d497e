"""A run folder as `train` writes it, with a model made by a test."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from fer_pipeline.data.normalization import Normalization
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo


def save(folder: Path, model: keras.Model, classes: Sequence[str], **fields: Any) -> ModelInfo:
    """Write a serving model and its model.json.

    Args:
        folder: The run's folder.
        model: Network from raw pixels to probabilities.
        classes: Classes of the model.
        fields: Fields of `ModelInfo` that differ from the defaults here.
    """
    folder.mkdir(parents=True, exist_ok=True)
    serving_model.save_model(model, folder / RunFile.MODEL)
    defaults: dict[str, Any] = {
        "size": model.input_shape[1],
        "normalization": Normalization.centered(),
        "dataset_checksum": "fedcba9876543210",
        "network": "handmade",
        "options": {},
        "parameters": model.count_params(),
        "best_step": 7,
        "best_accuracy": None,
        "seed": 1,
        "sha256": trained_model.compute_sha256(folder / RunFile.MODEL),
        "versions": {},
    }
    model_info = ModelInfo(classes=list(classes), **(defaults | fields))
    (folder / RunFile.MODEL_INFO).write_text(model_info.model_dump_json(indent=2) + "\n")
    return model_info
