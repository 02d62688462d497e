"""From images and a trained run to an emotion, with its probabilities, for each image."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fer_pipeline import manifest, provenance, publication, storage
from fer_pipeline.config import Config
from fer_pipeline.emotions import Labels
from fer_pipeline.errors import InputError
from fer_pipeline.learning.model import bundle
from fer_pipeline.learning.model.bundle import RunInfo
from fer_pipeline.publication import SCORES
from fer_pipeline.rows import Judge
from fer_pipeline.spark import scoring
from fer_pipeline.spark.records import Reading
from fer_pipeline.spark.scoring import Pixels, Scored
from fer_pipeline.spark.session import SparkSession
from fer_pipeline.spark.sources import Sources


@dataclass(frozen=True)
class Scores:
    """What a run of the job made.

    Attributes:
        format: What this is.
        found: How many images were found, readable or not.
        scored: How many of them have an emotion.
        emotions: How many images show each emotion.
        unscored: How many have none, by reason.
        files: Path, rows and bytes of each file.
        model: Which model it was: its run's folder and the checksum of its file.
        versions: Of what made the scores.
        created: When.
    """

    format: str
    found: int
    scored: int
    emotions: dict[str, int]
    unscored: dict[str, int]
    files: list[dict[str, Any]]
    model: dict[str, Any]
    versions: dict[str, str]
    created: str


def score(
    spark: SparkSession,
    model: str,
    inputs: Sequence[str],
    output: str,
    config: Config,
    *,
    overwrite: bool = False,
) -> Scores:
    """Scores images.

    `scores.json` is written last and names the files: what it does not name is none of the scores.

    Args:
        spark: The session.
        model: A finished run's folder.
        inputs: Folders of images, CSV files, or one dataset.
        output: The folder for the scores.
        config: The configuration.
        overwrite: Whether scores that are there may be replaced.

    Raises:
        RunError: The model's folder is no finished run.
        InputError: A source is missing or is not what it should be.
        DatasetError: A dataset is damaged, or its images are enhanced otherwise than the model's.
        StorageError: There are scores already, or the folder holds something else.
    """
    folder = storage.local_path(output).absolute()
    publication.claim(folder, SCORES, overwrite=overwrite)
    run = storage.local_path(model)
    info, content = bundle.read_model(run)
    load = _loader(spark, content, info, config)
    try:
        made, known = _scored(spark, inputs, folder, config, info, load)
        scored, unscored = sum(made.emotions.values()), sum(made.reasons.values())
        found = sum(file["rows"] for file in made.files)
        if scored + unscored != found or (known is not None and known != found):
            raise RuntimeError(f"{known} found, {found} written, {scored + unscored} accounted for")
        if not found:
            raise InputError(f"{', '.join(inputs)}: holds no image")
        publication.require_shared(folder, [file["path"] for file in made.files])
    except BaseException:
        publication.clean(folder, SCORES, _files_there(folder))
        raise
    result = Scores(
        format=SCORES.format,
        found=found,
        scored=scored,
        emotions={name: made.emotions[name] for name in info.classes},
        unscored=dict(made.reasons),
        files=made.files,
        model={"run": str(run.absolute()), "sha256": info.sha256},
        versions=provenance.versions("tensorflow", "tensorflow-cpu", "keras", "pyspark"),
        created=provenance.now(),
    )
    storage.write_text(folder / SCORES.mark, json.dumps(asdict(result), indent=2) + "\n")
    config.write(folder / "config.yaml")
    publication.clean(folder, SCORES, [str(file["path"]) for file in made.files])
    return result


def _files_there(folder: Path) -> list[str]:
    """The files of the scores that the folder holds, if any."""
    mark = folder / SCORES.mark
    return (
        [f["path"] for f in json.loads(storage.read_text(mark))["files"]] if mark.exists() else []
    )


def _loader(
    spark: SparkSession, content: bytes, info: RunInfo, config: Config
) -> Callable[[], Callable[[Pixels], Any]]:
    """The function by which a worker gets the model: it travels there, so no path is shared."""
    shared = spark.sparkContext.broadcast(content)
    network, size, batch_size = info.network, info.size, config.inference.batch_size
    threads = int(spark.conf.get("spark.task.cpus", "1") or 1)

    def load() -> Callable[[Pixels], Any]:
        from fer_pipeline.learning.model.predictor import predictor

        return predictor(shared.value, network, size, batch_size, threads)

    return load


def _scored(
    spark: SparkSession,
    inputs: Sequence[str],
    folder: Path,
    config: Config,
    info: bundle.RunInfo,
    load: Callable[[], Callable[[Pixels], Any]],
) -> tuple[Scored, int | None]:
    """Scores whatever the inputs are; also how many images there must be, where that is known."""
    if len(inputs) == 1 and manifest.exists_at(inputs[0]):
        path = storage.local_path(inputs[0])
        dataset = manifest.read(path)
        manifest.require_files(path, dataset)
        manifest.require_enhancement(path, dataset, info.enhancement)
        rows = scoring.dataset_rows(spark, path, dataset)
        crops = scoring.crops_of_dataset(dataset, info.size)
        return scoring.score(rows, crops, load, info.classes, folder), dataset.rows.written
    sources = Sources(spark, inputs, config.input.format)
    judge = Judge(Labels({}, ()), None, labelled=False)
    reading = Reading(
        judge,
        info.size,
        config.seed,
        labelled=False,
        usage=False,
        enhancement=info.enhancement,
    )
    offsets, known = sources.offsets()
    found, read = sources.reader(reading)
    crops = scoring.crops_of_records(read, offsets, info.size)
    return scoring.score(found, crops, load, info.classes, folder), known


def summary(made: Scores, output: str) -> str:
    """The result of the job for a terminal: what was found, and what the faces show."""
    lines = [f"{name:<12}{count:>10,}" for name, count in made.emotions.items()]
    lines.append("")
    unscored = made.found - made.scored
    lines.append(f"{made.found:,} images found = {made.scored:,} scored + {unscored:,} not scored")
    lines += [f"  not scored, {reason}: {count:,}" for reason, count in made.unscored.items()]
    lines.append(f"scores {output}")
    return "\n".join(lines)
