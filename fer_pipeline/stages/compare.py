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

from fer_pipeline import (
    answers,
    comparison,
    comparison_report,
    manifest,
    metrics,
    provenance,
    publication,
    schema,
    significance,
    storage,
)
from fer_pipeline.accounting import Split
from fer_pipeline.comparison import Comparison, Conditions, Cost, Entry
from fer_pipeline.config import Config
from fer_pipeline.errors import ConfigError, DatasetError, RunError
from fer_pipeline.gallery import Faces
from fer_pipeline.learning.evaluation import comparison_plots
from fer_pipeline.learning.model import bundle, cost, run_folder
from fer_pipeline.learning.model.run_folder import RunInfo
from fer_pipeline.learning.model.summary import describe
from fer_pipeline.manifest import Manifest
from fer_pipeline.metrics import Metrics
from fer_pipeline.publication import COMPARISON, CONFIG
from fer_pipeline.stages import predictions
from fer_pipeline.stages.predictions import Columns

log = logging.getLogger(__name__)

PICTURE = COMPARISON.names[0]
OUTPUTS = (*COMPARISON.names, COMPARISON.mark, CONFIG)
"""What a comparison consists of, in the order in which it is written."""

_PACKAGES = ("tensorflow", "tensorflow-cpu", "keras", "numpy", "scipy", "scikit-learn", "petastorm")
# Forward passes are timed on so many; they do not depend on what the images show.
_TIMED_BATCHES = 8


@dataclass(frozen=True)
class _Answer:
    """What one model says of the split; `pixels` are images of it, as the model takes them."""

    name: str
    run: Path
    info: RunInfo
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
    data, folder = (storage.path(path) for path in (dataset, output))
    publication.claim(folder, COMPARISON, overwrite=overwrite)
    made = manifest.read(data)
    manifest.require(data, made, split)
    if made.rows_of(Split.TRAIN):
        # For the copies: what is missing there is told before all the work.
        manifest.require(data, made, Split.TRAIN)
    runs = _runs(models, data, made)
    given = [
        _answer(name, run, info, data, made, split, config) for name, (run, info) in runs.items()
    ]
    copies = predictions.copies_in_training(data, made, split, given[0].rows)
    found = _compared(given, copies, made, config)
    with publication.writing(folder, COMPARISON, overwrite=overwrite):
        for name in (CONFIG, COMPARISON.mark):
            storage.remove(folder / name)
        title = f"accuracy against cost on the {split} split of {data.resolve().name}"
        comparison_plots.accuracy_cost(found, title, folder / PICTURE)
        about = _about(data, made, split)
        text = json.dumps({**about, **found.to_dict()}, indent=2, allow_nan=False)
        storage.write_text(folder / COMPARISON.mark, text + "\n")
        config.write(folder / CONFIG)
        publication.clean(folder, COMPARISON, keep=())
    return found


def _runs(
    models: Sequence[str | Path], data: Path, made: Manifest
) -> dict[str, tuple[Path, RunInfo]]:
    """By a name of its own, each run and what it says; all are looked at before any is run."""
    folders = [run_folder.located(model) for model in models]
    resolved = [folder.resolve() for folder in folders]
    for place, folder in enumerate(resolved):
        if folder in resolved[:place]:
            raise RunError(f"--compare {folders[place]}: is named twice; name each run once")
    found = [(folder, run_folder.read(folder)) for folder in folders]
    for folder, info in found:
        try:
            predictions.require_fit(folder, info, data, made)
        except DatasetError as error:
            raise RunError(f"--compare {folder}: does not fit the dataset: {error}") from error
    return dict(zip(comparison.names(resolved), found, strict=True))


def _answer(
    name: str,
    run: Path,
    info: RunInfo,
    data: Path,
    made: Manifest,
    split: Split,
    config: Config,
) -> _Answer:
    log.info("%s: evaluating %s", name, run)
    predictions.warn_of_leakage(info, made, split)
    network, _ = bundle.load(run)
    kept: list[npt.NDArray[np.uint8]] = []

    def keep(faces: Faces) -> None:
        if len(kept) < _TIMED_BATCHES:
            kept.append(faces.pixels)

    given, rows = predictions.predict(
        predictions.of_network(network),
        info,
        data,
        made,
        split,
        batch_size=config.inference.batch_size,
        flip=config.inference.flip_tta,
        offer=keep,
    )
    try:
        result = metrics.measure(rows[schema.LABEL], given, made.classes, config.seed)
    except ValueError as error:
        raise RunError(f"{run}: its model cannot be evaluated: {error}") from error
    return _Answer(name, run, info, network, given, rows, result, np.concatenate(kept))


def _compared(
    given: Sequence[_Answer],
    copies: npt.NDArray[np.bool_] | None,
    made: Manifest,
    config: Config,
) -> Comparison:
    batch_size = config.inference.batch_size
    log.info("timing forward passes")
    speeds = cost.images_per_second(
        [one.network for one in given], [one.pixels for one in given], batch_size
    )
    entries = [
        _entry(one, speed, copies, made.classes) for one, speed in zip(given, speeds, strict=True)
    ]
    right = [answers.predictions(one.probabilities) == one.rows[schema.LABEL] for one in given]
    at_once = min(batch_size, len(given[0].pixels))
    conditions = Conditions(at_once, cost.cores(), config.inference.flip_tta)
    pairs = significance.compare(np.stack(right))
    count = None if copies is None else int(copies.sum())
    return Comparison(tuple(entries), pairs, conditions, count)


def _entry(
    answer: _Answer,
    speed: float,
    copies: npt.NDArray[np.bool_] | None,
    classes: Sequence[str],
) -> Entry:
    labels, given, new = answer.rows[schema.LABEL], answer.probabilities, None
    if copies is not None and copies.any() and not copies.all():
        seed = answer.result.intervals.seed
        new = metrics.measure(labels[~copies], given[~copies], classes, seed)
    network = describe(answer.network)
    return Entry(
        name=answer.name,
        path=str(answer.run.resolve()),
        sha256=answer.info.sha256,
        dataset_checksum=answer.info.dataset_checksum,
        network=answer.info.network,
        size=answer.info.size,
        precision=network.precision,
        cost=Cost(network.parameters, network.multiply_adds, tuple(network.left_out), speed),
        result=answer.result,
        new=new,
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
        "versions": provenance.versions(*_PACKAGES),
    }


def summary(found: Comparison, output: str | Path) -> str:
    """The result of the job for a terminal: what each costs, how good it is, which differ."""
    folder = storage.path(output)
    return "\n".join(
        [
            comparison_report.cost_table(found),
            "",
            comparison_report.quality_table(found),
            "",
            comparison_report.pair_table(found),
            "",
            *(f"wrote {folder / name}" for name in OUTPUTS),
        ]
    )
