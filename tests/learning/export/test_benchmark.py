"""How fast a model's forms are: with a clock of its own, and once in truth."""

import sys
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import RunError
from fer_pipeline.io.output_kinds import EXPORT_FILES, RunFile
from fer_pipeline.learning.export import benchmark, formats, verify
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.inference.export_manifest import ExportedModel
from fer_pipeline.learning.inference.trained_model import ModelInfo, TrainedModel

SIZE = 16
PIXELS = np.zeros((4, SIZE, SIZE), np.uint8)


class Clock:
    """The processor's time, which passes only while a form of its own works."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, ""

    def form(self, name: str, *costs: float) -> Callable[[np.ndarray], None]:
        """A form that takes so many seconds for an image, call by call, and then the last."""
        left = list(costs)

        def run(pixels: np.ndarray) -> None:
            self.calls += name
            self.now += len(pixels) * (left.pop(0) if len(left) > 1 else left[0])

        return run


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(time, "process_time", lambda: made.now)
    return made


class TestSpeeds:
    def test_the_first_pass_warms_up_and_the_best_turn_counts(self, clock) -> None:
        # A call of 4 images is a turn.
        run = clock.form("a", 1 / 1024, 1, 0.5, 0.25, 0.5, 1)
        assert benchmark.measure_predict_fn_speeds({"a": run}, PIXELS) == {"a": 4.0}
        assert clock.calls == "a" * 6

    def test_a_turn_goes_on_for_a_quarter_of_a_second(self, clock) -> None:
        assert benchmark.measure_predict_fn_speeds({"a": clock.form("a", 1 / 64)}, PIXELS) == {
            "a": 64.0
        }
        assert clock.calls == "a" * (1 + 5 * 4)

    def test_they_take_turns_and_keep_their_names(self, clock) -> None:
        run = {"slow": clock.form("s", 0.5), "fast": clock.form("f", 0.125)}
        assert benchmark.measure_predict_fn_speeds(run, PIXELS) == {"slow": 2.0, "fast": 8.0}
        assert clock.calls == "sf" * 6


def test_the_unit_is_the_models_own_speed(tmp_path, monkeypatch) -> None:
    def measure(*given: object) -> dict[str, float]:
        asked.append(given)
        return {"litert_int8": 400.0, "litert": 200.0, "saved_model": 50.0, "keras": 100.0}

    asked: list[object] = []
    monkeypatch.setattr(benchmark, "measure_speeds", measure)
    made = [
        ExportedModel(format=form, path=path, bytes=1, largest_difference=0, tolerance=0, sha256={})
        for form, path in EXPORT_FILES.items()
    ]
    info = ModelInfo.model_construct(network="system_a", size=SIZE)
    model = TrainedModel(tmp_path / "run", info)
    found = verify.benchmark_exports(made, model, tmp_path)
    assert {one.format: one.relative_speed for one in found} == {
        "saved_model": 0.5,
        "litert": 2.0,
        "litert_int8": 4.0,
    }
    paths = {form: tmp_path / path for form, path in EXPORT_FILES.items()}
    assert asked == [({"keras": tmp_path / "run" / "model.keras", **paths}, "system_a", SIZE)]


def make_model(filters: int) -> keras.Model:
    images = keras.Input((SIZE, SIZE, 1))
    maps = keras.layers.Conv2D(filters, 3)(images)
    maps = keras.layers.Conv2D(filters, 3)(maps)
    logits = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(maps))
    return serving_model.build_serving_model(
        keras.Model(images, logits), SIZE, Normalization.centered()
    )


class TestMeasure:
    @pytest.fixture(scope="class")
    def models(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Every form of two models, of which one multiplies a thousand times as much."""
        folder = tmp_path_factory.mktemp("models")
        for name, filters in (("small", 2), ("large", 64)):
            model = make_model(filters)
            serving_model.save_model(model, folder / name / RunFile.MODEL)
            for form, each in formats.EXPORT_FORMATS.items():
                each.write(model, folder / name / EXPORT_FILES[form])
        return folder

    def test_each_form_is_timed_under_its_name(self, models) -> None:
        small, large = models / "small", models / "large"
        files = {
            "litert": large / "model.tflite",
            "litert_int8": small / "model.tflite",
            "saved_model": large / "saved_model",
            "keras": small / RunFile.MODEL,
        }
        found = benchmark.measure_speeds(files, "system_a", SIZE)
        assert found.keys() == files.keys()
        assert found["litert_int8"] > 3 * found["litert"]
        assert found["keras"] > 3 * found["saved_model"]

    def test_what_cannot_be_measured_is_one_clear_error(self, tmp_path, monkeypatch) -> None:
        failing = tmp_path / "python"
        failing.write_text("#!/bin/sh\necho Traceback >&2\necho 'OSError: no memory' >&2\nexit 3\n")
        failing.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(failing))
        with pytest.raises(RunError) as raised:
            benchmark.measure_speeds({"keras": tmp_path / "run.keras"}, "system_a", SIZE)
        assert str(raised.value) == (
            f"{tmp_path}/run.keras: its speed cannot be measured: OSError: no memory"
        )
