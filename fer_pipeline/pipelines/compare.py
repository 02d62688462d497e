"""From several trained runs and one split of a dataset to a table of what each is worth."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from fer_pipeline.config import Config
from fer_pipeline.data import schema
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, DatasetError, RunError
from fer_pipeline.io import versions
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import COMPARISON, CONFIG_FILE, ComparisonFile
from fer_pipeline.io.paths import parse_path
from fer_pipeline.learning.analysis import timing
from fer_pipeline.learning.analysis.network_summary import summarize_network
from fer_pipeline.learning.inference import predict_split, trained_model
from fer_pipeline.learning.inference.predict_split import Columns
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.metrics import classification, comparison, comparison_tables, inputs, significance
from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.comparison import BenchmarkSettings, Comparison, Cost, ModelResult
from fer_pipeline.metrics.samples import EvaluatedImages
from fer_pipeline.plots import comparison as comparison_plots

log = logging.getLogger(__name__)

OUTPUT_FILES = (*ComparisonFile, CONFIG_FILE)
"""The files of a comparison, in the order in which they are written."""

_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "scipy", "scikit-learn", "petastorm")
# Forward passes are timed on so many; they do not depend on what the images show.
_TIMED_BATCHES = 8


@dataclass(frozen=True)
class _Answer:
    """What one model says of the split; `pixels` are images of it, as the model takes them."""

    name: str
    model: TrainedModel
    network: Any
    probabilities: npt.NDArray[np.float32]
    rows: Columns
    result: Metrics
    pixels: npt.NDArray[np.uint8]


def compare(
    models: Sequence[str | Path],
    dataset: str | Path,
    split: Split,
    output: str | Path,
    config: Config,
    overwrite: bool = False,
) -> Comparison:
    """Compares trained runs on the same rows of one split of a dataset.

    `comparison.json` is written after the picture and, in an overwrite, taken away before it.

    Args:
        models: The runs' folders, or names of models that are shipped; no two alike.
        dataset: The dataset's folder; where a model takes another size of image they are resized.
        split: The split.
        output: The folder for the comparison.
        config: The configuration.
        overwrite: Whether a comparison that is there may be replaced.

    Raises:
        ConfigError: The runtime is LiteRT.
        RunError: A folder is no finished run or is named twice, its classes or its enhancement are
            not those of the dataset, or its model does not give probabilities.
        DatasetError: The dataset is none, or its split is empty or broken.
        StorageError: There is a comparison already, or the folder holds what is not ours.
    """
    if config.inference.backend == "litert":
        raise ConfigError(
            "inference.backend: a comparison runs Keras; evaluate the runs with litert one by one"
        )
    data = parse_path(dataset)
    output_folder = OutputFolder(parse_path(output), COMPARISON, overwrite=overwrite)
    output_folder.ensure_writable()
    stored = StoredDataset.open(data)
    made = stored.manifest
    stored.require_split(split)
    if stored.row_count(Split.TRAIN):
        # For the copies: what is missing there is told before all the work.
        stored.require_split(Split.TRAIN)
    runs = _runs(models, stored)
    given = [_answer(name, model, stored, split, config) for name, model in runs.items()]
    copies = predict_split.find_copies_in_training(stored, split, given[0].rows)
    found = _compared(given, copies, made, config)
    with output_folder.writing():
        output_folder.retract()
        title = f"accuracy against cost on the {split} split of {data.resolve().name}"
        plot_file = output_folder.path / ComparisonFile.ACCURACY_COST
        comparison_plots.draw_accuracy_cost(found, title, plot_file)
        about = _about(data, made, split)
        text = json.dumps({**about, **found.to_dict()}, indent=2, allow_nan=False)
        output_folder.commit(text + "\n", config.write)
    return found


def _runs(models: Sequence[str | Path], dataset: StoredDataset) -> dict[str, TrainedModel]:
    """Return the models by a short unique name; each is checked before any is run."""
    folders = [trained_model.resolve_model_path(model) for model in models]
    resolved = [folder.resolve() for folder in folders]
    for place, folder in enumerate(resolved):
        if folder in resolved[:place]:
            raise RunError(f"--compare {folders[place]}: is named twice; name each run once")
    opened = [TrainedModel.open(folder) for folder in folders]
    for model in opened:
        try:
            predict_split.require_compatible(model, dataset)
        except DatasetError as error:
            raise RunError(
                f"--compare {model.folder}: does not fit the dataset: {error}"
            ) from error
    return dict(zip(comparison.shorten_to_unique_names(resolved), opened, strict=True))


def _answer(
    name: str, model: TrainedModel, dataset: StoredDataset, split: Split, config: Config
) -> _Answer:
    log.info("%s: evaluating %s", name, model.folder)
    predict_split.warn_about_leakage(model, dataset, split)
    network = model.load_network()
    kept: list[npt.NDArray[np.uint8]] = []

    def keep(faces: EvaluatedImages) -> None:
        if len(kept) < _TIMED_BATCHES:
            kept.append(faces.pixels)

    given, rows = predict_split.predict(
        predict_split.keras_predict_fn(network),
        model,
        dataset,
        split,
        batch_size=config.inference.batch_size,
        flip_tta=config.inference.flip_tta,
        on_batch=keep,
    )
    try:
        result = classification.compute_metrics(
            rows[schema.LABEL], given, dataset.classes, config.seed
        )
    except ValueError as error:
        raise RunError(f"{model.folder}: its model cannot be evaluated: {error}") from error
    return _Answer(name, model, network, given, rows, result, np.concatenate(kept))


def _compared(
    given: Sequence[_Answer],
    copies: npt.NDArray[np.bool_] | None,
    made: Manifest,
    config: Config,
) -> Comparison:
    batch_size = config.inference.batch_size
    log.info("timing forward passes")
    speeds = timing.images_per_second(
        [one.network for one in given], [one.pixels for one in given], batch_size
    )
    entries = [
        _entry(one, speed, copies, made.classes) for one, speed in zip(given, speeds, strict=True)
    ]
    right = [inputs.predict_classes(one.probabilities) == one.rows[schema.LABEL] for one in given]
    at_once = min(batch_size, len(given[0].pixels))
    conditions = BenchmarkSettings(at_once, timing.available_cores(), config.inference.flip_tta)
    pairs = significance.compare_classifiers(np.stack(right))
    count = None if copies is None else int(copies.sum())
    return Comparison(tuple(entries), pairs, conditions, count)


def _entry(
    answer: _Answer,
    speed: float,
    copies: npt.NDArray[np.bool_] | None,
    classes: Sequence[str],
) -> ModelResult:
    labels, given, new = answer.rows[schema.LABEL], answer.probabilities, None
    if copies is not None and copies.any() and not copies.all():
        seed = answer.result.intervals.seed
        new = classification.compute_metrics(labels[~copies], given[~copies], classes, seed)
    network = summarize_network(answer.network)
    return ModelResult(
        name=answer.name,
        path=str(answer.model.folder.resolve()),
        sha256=answer.model.info.sha256,
        dataset_checksum=answer.model.info.dataset_checksum,
        network=answer.model.info.network,
        size=answer.model.info.size,
        precision=network.precision,
        cost=Cost(
            network.parameters, network.multiply_adds, tuple(network.uncounted_layers), speed
        ),
        metrics=answer.result,
        without_overlap=new,
    )


def _about(data: Path, made: Manifest, split: Split) -> dict[str, Any]:
    return {
        "format": COMPARISON.format,
        "dataset": {
            "path": str(data.resolve()),
            "checksum": made.checksum,
            "size": made.image.size,
        },
        "split": str(split),
        "versions": versions.package_versions(*_PACKAGES),
    }


def summary(found: Comparison, output: str | Path) -> str:
    """The result of the job for a terminal: what each costs, how good it is, which differ."""
    folder = parse_path(output)
    return "\n".join(
        [
            comparison_tables.format_cost_table(found),
            "",
            comparison_tables.format_quality_table(found),
            "",
            comparison_tables.format_pairwise_table(found),
            "",
            *(f"wrote {folder / name}" for name in OUTPUT_FILES),
        ]
    )
