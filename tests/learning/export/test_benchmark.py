"""Speeds of the export formats, on a simulated clock and measured."""

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
    """Processor time that passes only during predictions by functions of this clock.

    Attributes:
        now: Time in seconds.
        calls: Names of the functions in the order of their calls.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.calls = ""

    def make_predict_fn(self, name: str, *image_seconds: float) -> Callable[[np.ndarray], None]:
        """Return a function that takes these seconds per image, call by call.

        The last number applies to all later calls.
        """
        remaining = list(image_seconds)

        def predict(pixels: np.ndarray) -> None:
            self.calls += name
            self.now += len(pixels) * (remaining.pop(0) if len(remaining) > 1 else remaining[0])

        return predict


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    replacement = Clock()
    monkeypatch.setattr(time, "process_time", lambda: replacement.now)
    return replacement


class TestSpeedsOnASimulatedClock:
    def test_the_first_call_warms_up_and_the_fastest_turn_counts(self, clock) -> None:
        # A call of 4 images is a turn.
        predict = clock.make_predict_fn("a", 1 / 1024, 1, 0.5, 0.25, 0.5, 1)
        assert benchmark.measure_predict_fn_speeds({"a": predict}, PIXELS) == {"a": 4.0}
        assert clock.calls == "a" * 6

    def test_a_turn_repeats_until_a_quarter_of_a_second_has_passed(self, clock) -> None:
        assert benchmark.measure_predict_fn_speeds(
            {"a": clock.make_predict_fn("a", 1 / 64)}, PIXELS
        ) == {"a": 64.0}
        assert clock.calls == "a" * (1 + 5 * 4)

    def test_functions_take_turns_and_speeds_keep_their_names(self, clock) -> None:
        predict_fns = {
            "slow": clock.make_predict_fn("s", 0.5),
            "fast": clock.make_predict_fn("f", 0.125),
        }
        assert benchmark.measure_predict_fn_speeds(predict_fns, PIXELS) == {
            "slow": 2.0,
            "fast": 8.0,
        }
        assert clock.calls == "sf" * 6


def test_speeds_are_relative_to_the_keras_model(tmp_path, monkeypatch) -> None:
    def measure(*arguments: object) -> dict[str, float]:
        calls.append(arguments)
        return {"litert_int8": 400.0, "litert": 200.0, "saved_model": 50.0, "keras": 100.0}

    calls: list[object] = []
    monkeypatch.setattr(benchmark, "measure_speeds", measure)
    exports = [
        ExportedModel(format=name, path=path, bytes=1, largest_difference=0, tolerance=0, sha256={})
        for name, path in EXPORT_FILES.items()
    ]
    model_info = ModelInfo.model_construct(network="system_a", size=SIZE)  # type: ignore[call-arg]
    model = TrainedModel(tmp_path / "run", model_info)
    benchmarked = verify.benchmark_exports(exports, model, tmp_path)
    assert {export.format: export.relative_speed for export in benchmarked} == {
        "saved_model": 0.5,
        "litert": 2.0,
        "litert_int8": 4.0,
    }
    paths = {name: tmp_path / path for name, path in EXPORT_FILES.items()}
    assert calls == [({"keras": tmp_path / "run" / "model.keras", **paths}, "system_a", SIZE)]


def make_model(filters: int) -> keras.Model:
    """Return a serving model of two convolutions with this number of filters."""
    images = keras.Input((SIZE, SIZE, 1))
    maps = keras.layers.Conv2D(filters, 3)(images)
    maps = keras.layers.Conv2D(filters, 3)(maps)
    logits = keras.layers.Dense(3)(keras.layers.GlobalAveragePooling2D()(maps))
    return serving_model.build_serving_model(
        keras.Model(images, logits), SIZE, Normalization.centered()
    )


class TestMeasuredSpeeds:
    @pytest.fixture(scope="class")
    def models(self, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """Two models in all formats; the large one has a thousand times as many products."""
        folder = tmp_path_factory.mktemp("models")
        for name, filters in (("small", 2), ("large", 64)):
            model = make_model(filters)
            serving_model.save_model(model, folder / name / RunFile.MODEL)
            for format_name, export_format in formats.EXPORT_FORMATS.items():
                export_format.write(model, folder / name / EXPORT_FILES[format_name])
        return folder

    @pytest.mark.slow
    def test_each_format_is_measured_under_its_name(self, models) -> None:
        small, large = models / "small", models / "large"
        files = {
            "litert": large / "model.tflite",
            "litert_int8": small / "model.tflite",
            "saved_model": large / "saved_model",
            "keras": small / RunFile.MODEL,
        }
        speeds = benchmark.measure_speeds(files, "system_a", SIZE)
        assert speeds.keys() == files.keys()
        assert speeds["litert_int8"] > 3 * speeds["litert"]
        assert speeds["keras"] > 3 * speeds["saved_model"]

    def test_a_failed_measurement_is_one_error_with_its_cause(self, tmp_path, monkeypatch) -> None:
        failing = tmp_path / "python"
        failing.write_text("#!/bin/sh\necho Traceback >&2\necho 'OSError: no memory' >&2\nexit 3\n")
        failing.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(failing))
        with pytest.raises(RunError) as raised:
            benchmark.measure_speeds({"keras": tmp_path / "run.keras"}, "system_a", SIZE)
        message = str(raised.value)
        assert message.startswith(f"{tmp_path}/run.keras: ")
        assert "speed cannot be measured" in message
        assert "OSError: no memory" in message
        assert "Traceback" not in message
