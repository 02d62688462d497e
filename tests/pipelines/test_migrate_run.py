"""Runs of the first format, as version 0.1 wrote them."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from fer_pipeline.config import Config, load_stored_config
from fer_pipeline.errors import RunError
from fer_pipeline.pipelines import migrate_run

OLD_CONFIG: dict[str, Any] = {
    "seed": 3,
    "input": {"format": "csv", "max_bad_fraction": 0.25},
    "labels": {"votes": "votes.csv", "form": "distribution"},
    "split": {"kind": "stratified", "usage": {"Training": "train"}, "validation": 0.2},
    "oversample": {"disgust": 4.0},
    "balance": False,
    "augmentation": {"flip": True, "rotations": [10.0], "border": "reflect"},
    "output": {"partitions": 3, "compression": "snappy"},
    "feed": {"batch_size": 8, "shuffle_buffer": 99, "deterministic": False, "cache": "memory"},
    "training": {
        "epochs": 4,
        "steps": None,
        "validate_every": 5,
        "checkpoint_every": 6,
        "trials": 2,
        "optimizer": {"learning_rate": 0.5, "clip_norm": 0.75},
        "schedule": {"kind": "cosine", "final": 0.125, "minimum": 0.25},
        "best": "val_loss",
        "mixup": 0.4,
        "average": 0.9,
        "augmentation": {"flip": True, "erasing": 0.3},
    },
    "tracking": {"tensorboard": False, "mlflow": True, "uri": "http://a", "experiment": "faces"},
    "inference": {"batch_size": 7, "flip": True, "min_confidence": 0.5, "runtime": "litert"},
}
NEW_CONFIG: dict[str, Any] = {
    "seed": 3,
    "input": {"format": "csv", "max_quarantined_fraction": 0.25},
    "labels": {"votes": "votes.csv", "target": "soft"},
    "split": {
        "method": "stratified",
        "usage_to_split": {"Training": "train"},
        "validation": 0.2,
    },
    "sampling": {"oversample": {"disgust": 4.0}, "balance": False},
    "variants": {"flip": True, "rotations": [10.0], "border": "reflect"},
    "output": {"files_per_split": 3, "compression": "snappy"},
    "loader": {
        "batch_size": 8,
        "shuffle_buffer": 99,
        "deterministic": False,
        "cache_in_memory": True,
    },
    "training": {
        "epochs": 4,
        "steps": None,
        "validate_every_steps": 5,
        "checkpoint_every_steps": 6,
        "restarts": 2,
        "optimizer": {"learning_rate": 0.5, "global_clipnorm": 0.75},
        "schedule": {"kind": "cosine", "min_learning_rate": 0.125},
        "select_best_by": "val_loss",
        "mixup_alpha": 0.4,
        "ema_decay": 0.9,
        "augmentation": {"flip": True, "random_erasing": 0.3},
    },
    "tracking": {
        "tensorboard": False,
        "mlflow": {"enabled": True, "uri": "http://a", "experiment": "faces"},
    },
    "inference": {"batch_size": 7, "flip_tta": True, "min_confidence": 0.5, "backend": "litert"},
}
OLD_HISTORY = "step,epoch,minibatch_loss,trial,rows\n0,0,,0,\n5,1,0.30000000000000004,1,40\n"
OLD_ENTRY = {"step": 5, "epoch": 1, "minibatch_loss": 0.30000000000000004, "trial": 1, "rows": 40}
NEW_ENTRY = {"step": 5, "epoch": 1, "minibatch_loss": 0.30000000000000004, "restart": 1, "rows": 40}
ARRAYS: dict[str, Any] = {
    "variables/0": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "variables/1": np.array(2**60, np.int64),
    "watched/0": np.array(0.25, np.float32),
    "measures/0": np.array(1.5),
    "best/0": np.full((3,), np.nan, np.float32),
}
NEW_GROUPS = {"watched/0": "monitor/0", "measures/0": "metrics/0"}


def write_old_run(folder: Path) -> None:
    """Write a finished run with an export."""
    export = folder / "export"
    export.mkdir(parents=True)
    (folder / "model.keras").write_bytes(b"weights")
    (folder / "history.csv").write_text(OLD_HISTORY)
    (export / "model.int8.tflite").write_bytes(b"quantised weights")
    for place in (folder, export):
        (place / "config.yaml").write_text(yaml.safe_dump(OLD_CONFIG, sort_keys=False))
    model_info = {"format": "fer_pipeline run", "format_version": 1, "best_trial": 1, "size": 48}
    (folder / "model.json").write_text(json.dumps(model_info))
    agreement = {"images": 9, "calibrated_on": "train", "same": 8, "right": 7, "float_right": 6}
    forms = [
        {"form": "litert", "agreement": None},
        {"form": "litert_int8", "agreement": agreement},
    ]
    export_info = {"format": "fer_pipeline export", "format_version": 1, "exports": forms}
    (export / "export.json").write_text(json.dumps(export_info))


def write_old_checkpoint(path: Path) -> None:
    """Write a checkpoint of the old format."""
    notes = {
        "format_version": 1,
        "config": OLD_CONFIG,
        "dataset": {
            "checksum": "0123456789abcdef",
            "labels": {"votes": "votes.csv", "form": "distribution"},
            "files": [["train", 30, 4096]],
        },
        "step": 5,
        "trial": 1,
        "rounds": [OLD_ENTRY],
        "best": {"value": 0.5, "made": OLD_ENTRY, "confusion": [[1]]},
    }
    encoded = np.frombuffer(json.dumps(notes).encode(), np.uint8)
    np.savez(path, **{**ARRAYS, "notes.json": encoded})


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the notes and the arrays."""
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    return json.loads(arrays.pop("notes.json").tobytes()), arrays


def compute_digests(folder: Path) -> dict[str, str]:
    """Return the SHA-256 digests of all files in a folder, by relative path."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_a_configuration_gets_its_present_keys_and_values():
    assert migrate_run.migrate_config(OLD_CONFIG) == Config.model_validate(NEW_CONFIG).to_dict()


def test_a_present_configuration_stays_as_it_is():
    config = Config.model_validate(NEW_CONFIG).to_dict()
    assert migrate_run.migrate_config(config) == config


@pytest.mark.parametrize(
    ("kind", "expected"), [("cosine", 0.0625), ("plateau", 0.03125), ("constant", 0.0625)]
)
def test_the_lowest_learning_rate_is_the_one_that_the_schedule_used(kind, expected):
    schedule = {"kind": kind, "final": 0.0625, "minimum": 0.03125}
    migrated = migrate_run.migrate_config(
        {"training": {"optimizer": {"learning_rate": 0.5}, "schedule": schedule}}
    )
    assert migrated["training"]["schedule"]["min_learning_rate"] == expected


def test_a_finished_run_is_converted_and_its_models_stay(tmp_path):
    run = tmp_path / "run"
    write_old_run(run)
    before = compute_digests(run)

    converted = migrate_run.migrate_run(run)

    after = compute_digests(run)
    assert after.keys() == before.keys()
    changed = {run / name for name in before if before[name] != after[name]}
    assert set(converted) == changed
    assert converted[-1] == run / "model.json"
    assert {path.name for path in changed} == {
        "config.yaml",
        "export.json",
        "history.csv",
        "model.json",
    }
    expected = Config.model_validate(NEW_CONFIG)
    assert load_stored_config(run / "config.yaml") == expected
    assert load_stored_config(run / "export" / "config.yaml") == expected
    assert json.loads((run / "model.json").read_text()) == {
        "format": "fer_pipeline run",
        "format_version": 2,
        "best_restart": 1,
        "size": 48,
    }
    assert json.loads((run / "export" / "export.json").read_text()) == {
        "format": "fer_pipeline export",
        "format_version": 2,
        "exports": [
            {"format": "litert", "agreement": None},
            {
                "format": "litert_int8",
                "agreement": {
                    "images": 9,
                    "calibration_split": "train",
                    "agreeing_images": 8,
                    "correct_images": 7,
                    "float_correct_images": 6,
                },
            },
        ],
    }
    history = (run / "history.csv").read_text()
    assert history == OLD_HISTORY.replace("trial", "restart")


def test_a_converted_run_stays_as_it_is(tmp_path):
    write_old_run(tmp_path / "run")
    write_old_checkpoint(tmp_path / "run" / "checkpoint.npz")
    migrate_run.migrate_run(tmp_path / "run")
    before = compute_digests(tmp_path)
    assert migrate_run.migrate_run(tmp_path / "run") == []
    assert compute_digests(tmp_path) == before


def test_a_checkpoint_keeps_its_arrays_bit_by_bit(tmp_path):
    (tmp_path / "unfinished.yaml").write_text(yaml.safe_dump(OLD_CONFIG))
    (tmp_path / "unfinished.csv").write_text(OLD_HISTORY)
    path = tmp_path / "checkpoint.npz"
    write_old_checkpoint(path)

    converted = migrate_run.migrate_run(tmp_path)

    assert {file.name for file in converted} == {
        "checkpoint.npz",
        "unfinished.csv",
        "unfinished.yaml",
    }
    notes, arrays = read_checkpoint(path)
    expected = {NEW_GROUPS.get(name, name): array for name, array in ARRAYS.items()}
    assert [*arrays] == [*expected]
    for name, array in expected.items():
        assert (arrays[name].dtype, arrays[name].shape) == (array.dtype, array.shape)
        assert arrays[name].tobytes() == array.tobytes()
    assert notes == {
        "format_version": 2,
        "config": Config.model_validate(NEW_CONFIG).to_dict(),
        "dataset": {
            "checksum": "0123456789abcdef",
            "labels": {"votes": "votes.csv", "target": "soft"},
            "files": [["train", 30, None]],
        },
        "step": 5,
        "restart": 1,
        "rounds": [NEW_ENTRY],
        "best": {"metric": 0.5, "round": NEW_ENTRY, "confusion": [[1]]},
    }


def test_an_interrupted_conversion_can_be_repeated(tmp_path, monkeypatch):
    write_old_run(tmp_path / "whole")
    write_old_run(tmp_path / "torn")
    migrate_run.migrate_run(tmp_path / "whole")
    with monkeypatch.context() as patched:
        patched.setattr(migrate_run, "_write_json", lambda path, document: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            migrate_run.migrate_run(tmp_path / "torn")
    migrate_run.migrate_run(tmp_path / "torn")
    assert compute_digests(tmp_path / "torn") == compute_digests(tmp_path / "whole")


def test_an_export_alone_is_converted(tmp_path):
    write_old_run(tmp_path)
    converted = migrate_run.migrate_run(tmp_path / "export")
    assert {path.name for path in converted} == {"config.yaml", "export.json"}
    assert json.loads((tmp_path / "model.json").read_text())["format_version"] == 1


def test_another_folder_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(RunError, match="neither a run nor an export"):
        migrate_run.migrate_run(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("model.json", "{"),
        ("model.json", "[]"),
        ("checkpoint.npz", "torn"),
        ("config.yaml", "feed: {cache: disk}"),
        ("config.yaml", "feed: {batch_size: 0}"),
    ],
)
def test_a_damaged_file_is_refused_by_its_name_and_stays(tmp_path, name, text):
    write_old_run(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(RunError) as raised:
        migrate_run.migrate_run(tmp_path)
    assert str(raised.value).startswith(f"{tmp_path / name}: ")
    assert (tmp_path / name).read_text() == text


def test_the_command_names_what_it_converted(tmp_path, capsys):
    write_old_run(tmp_path / "run")
    assert migrate_run.main([str(tmp_path / "run")]) == 0
    assert f"converted {tmp_path / 'run' / 'model.json'}\n" in capsys.readouterr().out
    assert migrate_run.main([str(tmp_path / "run")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run'}: nothing to convert\n"
    assert migrate_run.main([str(tmp_path / "none")]) != 0
    assert capsys.readouterr().err.startswith("error: ")
