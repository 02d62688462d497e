"""Backends and settings of the inference in `score`."""

from __future__ import annotations

import hashlib
import shutil
from collections import Counter

import numpy as np
import pytest

from fer_pipeline.config import Config, load_config
from fer_pipeline.data.scores import ScoreManifest
from fer_pipeline.errors import ConfigError, RunError
from fer_pipeline.jobs import score as jobs_score
from fer_pipeline.pipelines.export import export
from fer_pipeline.pipelines.score import format_report
from tests.helpers.scoring import (
    CLASSES,
    TOLERANCE,
    ScoringModel,
    expect_consistent_counts,
    expect_scored,
    round_rows,
)


@pytest.fixture(scope="module")
def exported_model(
    scoring_model: ScoringModel, tmp_path_factory: pytest.TempPathFactory
) -> ScoringModel:
    """A copy of the model with an export to float32."""
    folder = tmp_path_factory.mktemp("exported") / "run"
    shutil.copytree(scoring_model.folder, folder)
    export(folder, None, ["litert"], Config())
    return ScoringModel(folder, scoring_model.model, scoring_model.enhancement)


class TestInference:
    def test_litert_gives_the_same_scores(self, exported_model, faces, score_inputs) -> None:
        settings = ("inference.backend=litert", "inference.batch_size=7")

        scores = score_inputs(exported_model, faces[0], settings=settings)

        expect_consistent_counts(scores)
        expect_scored(scores.rows, exported_model, faces[1])
        file = exported_model.folder / "export" / "model.tflite"
        assert scores.manifest["backend"] == {
            "name": "litert",
            "format": "litert",
            "reason": "as configured",
            "sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        }
        assert load_config(scores.folder / "config.yaml") == load_config(None, settings)

    def test_keras_is_used_without_an_export(self, scoring_model, crop_scores) -> None:
        assert crop_scores.manifest["backend"] == {
            "name": "keras",
            "format": "model.keras",
            "reason": f"{scoring_model.folder}: has no export; create one with:"
            f" export --model {scoring_model.folder} --dataset DIR",
            "sha256": crop_scores.manifest["model"]["sha256"],
        }

    def test_without_an_export_litert_is_refused(
        self, scoring_model, faces, score_inputs, tmp_path
    ) -> None:
        with pytest.raises(RunError) as error:
            score_inputs(
                scoring_model, faces[0], to=tmp_path / "out", settings=("inference.backend=litert",)
            )

        assert str(error.value) == (
            f"{scoring_model.folder}: has no export; create one with:"
            f" export --model {scoring_model.folder} --dataset DIR"
        )
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("backend", ["keras", "litert"])
    def test_flip_tta_averages_with_the_mirror_images(
        self, exported_model, faces, score_inputs, backend
    ) -> None:
        settings = ("inference.flip_tta=true", f"inference.backend={backend}")
        originals = exported_model.predict(faces[1])
        mirrored = exported_model.predict([image[:, ::-1] for image in faces[1]])

        scores = score_inputs(exported_model, faces[0], settings=settings)

        expect_consistent_counts(scores)
        assert scores.manifest["flip_tta"] is True
        means = [[row[f"p_{name}"] for name in CLASSES] for row in scores.rows]
        assert np.array(means) == pytest.approx((originals + mirrored) / 2, abs=TOLERANCE)
        assert np.abs(originals - mirrored).max() > 0.03

    def test_an_emotion_below_the_min_confidence_is_uncertain(
        self, scoring_model, crops, crop_scores, score_inputs
    ) -> None:
        confidences = sorted(row["confidence"] for row in crop_scores.rows if row["reason"] is None)
        # The confidence of an image, which must keep its emotion.
        min_confidence = confidences[len(confidences) // 2]

        scores = score_inputs(
            scoring_model,
            str(crops.root).replace("[crops]", "*"),
            settings=(f"inference.min_confidence={min_confidence!r}",),
        )

        expected = [dict(row) for row in crop_scores.rows]
        for row in expected:
            if row["reason"] is None and row["confidence"] < min_confidence:
                row["emotion"] = "uncertain"
        assert round_rows(scores.rows) == round_rows(expected)
        manifest = scores.manifest
        assert manifest["min_confidence"] == min_confidence
        counts = Counter(row["emotion"] for row in expected if row["reason"] is None)
        assert manifest["emotions"] == {name: counts[name] for name in (*CLASSES, "uncertain")}
        assert manifest["emotions"]["uncertain"] == len(confidences) // 2
        assert (manifest["images"], manifest["scored"]) == (26, 16) == (26, counts.total())
        lines = format_report(ScoreManifest(**manifest), "out").splitlines()
        assert lines[3].split() == ["uncertain", str(len(confidences) // 2)]

    def test_min_confidence_is_refused_if_an_emotion_is_named_uncertain(
        self, scoring_model, faces, score_inputs, tmp_path
    ) -> None:
        folder = shutil.copytree(scoring_model.folder, tmp_path / "run")
        model_info = folder / "model.json"
        model_info.write_text(model_info.read_text().replace('"sad"', '"uncertain"'))

        with pytest.raises(RunError) as error:
            score_inputs(
                folder, faces[0], to=tmp_path / "out", settings=("inference.min_confidence=0.5",)
            )

        message = str(error.value)
        assert message.startswith(f"{folder}: ")
        assert "uncertain" in message
        assert "inference.min_confidence" in message
        assert not (tmp_path / "out").exists()

    REQUIRED = ("--input", "photos", "--output", "scores")

    def load(self, *options: str) -> Config:
        """Return the configuration for options of the command line."""
        return jobs_score._load_config(
            jobs_score.make_parser().parse_args([*self.REQUIRED, *options])
        )

    def test_options_override_the_configuration(self) -> None:
        config = self.load(
            *("--set", "seed=3", "--set", "inference.backend=keras", "--backend", "litert"),
            *("--faces", "detect", "--detector", "back", "--min-confidence", "0.4"),
            *("--flip-tta", "--every", "0.5", "--format", "csv"),
        )
        inference = config.inference
        assert (inference.faces, config.faces.detector) == ("detect", "back")
        assert (inference.every, inference.format) == (0.5, "csv")
        assert (config.seed, inference.backend, inference.min_confidence, inference.flip_tta) == (
            *(3, "litert"),
            *(0.4, True),
        )
        assert self.load() == Config()

    @pytest.mark.parametrize(
        ("options", "problem"),
        [
            (("--min-confidence", "2"), "--min-confidence: Input should be less than 1, got 2"),
            (
                ("--set", "inference.min_confidence=2"),
                "--set inference.min_confidence: Input should be less than 1, got 2",
            ),
            (("--every", "0"), "--every: Input should be greater than 0, got 0"),
        ],
    )
    def test_an_invalid_setting_is_named_like_the_option(
        self, options: tuple[str, ...], problem: str
    ) -> None:
        with pytest.raises(ConfigError) as error:
            self.load(*options)
        assert str(error.value) == problem
