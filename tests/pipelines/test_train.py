"""The models and run folders that `train` writes."""

import json
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf

from fer_pipeline.config import load_config
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.io import versions as provenance
from fer_pipeline.learning.inference import trained_model
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.training.callbacks import BestWeights
from fer_pipeline.learning.training.history import History
from fer_pipeline.learning.training.loop import StepSchedule, TrainingLoop
from fer_pipeline.pipelines.train import format_report, train
from tests.helpers.folders import RUN_FILES
from tests.helpers.images import read_image
from tests.helpers.stored_datasets import make_easy_rows, write_dataset
from tests.helpers.training import (
    CHECKSUM,
    CLASSES,
    SIZE,
    TRAIN_ROWS,
    VALIDATION_ROWS,
    RecordingCallback,
    have_same_bits,
    load_weights,
    make_config,
    make_loader,
    make_trainer,
    read_csv_rows,
    read_top_files,
    run_loop,
)

pytestmark = pytest.mark.usefixtures("undrawn_figures")


class TestLearning:
    def test_the_loss_falls_on_an_easy_dataset(self, easy_dataset, tmp_path):
        model_info = train(
            str(easy_dataset),
            str(tmp_path),
            make_config("training.validate_every_steps=30", steps=150, batch_size=16),
        )
        rows = read_csv_rows(tmp_path / "history.csv")
        losses = [float(row["minibatch_loss"]) for row in rows[1:]]
        assert losses[-1] < 0.5 * losses[0]
        assert float(rows[-1]["validation_loss"]) < 0.5 * float(rows[0]["validation_loss"])
        assert model_info.best_accuracy is not None
        assert model_info.best_accuracy > 0.9
        # The saved model reaches this accuracy on raw pixels.
        model = TrainedModel.open(tmp_path).load_network()
        pixels, labels = zip(
            *(
                (batch, origins["label"])
                for batch, origins in make_loader(
                    easy_dataset, "validation"
                ).iterate_stored_batches(["label"])
            ),
            strict=True,
        )
        guesses = model(np.concatenate(pixels)[..., None]).numpy().argmax(axis=1)
        assert (guesses == np.concatenate(labels)).mean() == pytest.approx(model_info.best_accuracy)

    def test_equal_seeds_give_the_same_bits(self, easy_dataset, tmp_path):
        for name, seed in (("a", 3), ("b", 3), ("c", 4)):
            train(str(easy_dataset), str(tmp_path / name), make_config(seed=seed))
        first, repeated, different = (tmp_path / name for name in "abc")
        assert have_same_bits(load_weights(first), load_weights(repeated))
        assert (first / "history.csv").read_bytes() == (repeated / "history.csv").read_bytes()
        assert not have_same_bits(load_weights(first), load_weights(different))
        assert (first / "history.csv").read_bytes() != (different / "history.csv").read_bytes()

    def test_the_seed_decides_the_order_of_the_rows(self, easy_dataset, tmp_path):
        # The same initial weights, another order of the rows.
        weights_by_seed = []
        for seed in (1, 2):
            trainer = make_trainer()
            run_loop(
                trainer, tmp_path, easy_dataset, StepSchedule(5, 5, 5), shuffle=True, seed=seed
            )
            weights_by_seed.append(trainer.network.get_weights())
        assert not have_same_bits(*weights_by_seed)

    def test_validation_does_not_change_the_weights(self, easy_dataset, tmp_path):
        weights = []
        for interval, validation in ((10, "validation"), (2, "validation"), (10, None)):
            trainer = make_trainer()
            run_loop(
                trainer,
                tmp_path,
                easy_dataset,
                StepSchedule(10, 5, interval),
                validation=validation,
                shuffle=True,
            )
            weights.append(trainer.network.get_weights())
        assert have_same_bits(weights[0], weights[1])
        assert have_same_bits(weights[0], weights[2])


class TestSavedWeights:
    def test_the_best_weights_are_kept_if_later_validations_are_worse(self, easy_dataset, tmp_path):
        class ConstantPrediction(keras.callbacks.Callback):
            """Makes all predictions equal from the fourth validation on."""

            def on_epoch_begin(self, epoch, logs=None):
                if epoch >= 3:
                    last = self.model.get_layer("system_a").layers[-1]
                    kernel, bias = last.get_weights()
                    last.set_weights([0 * kernel, 0 * bias - [0, 1000, 2000]])

        trainer, recording = make_trainer(), RecordingCallback()
        history = History.create(tmp_path / "history.csv")
        best = BestWeights("val_accuracy", history, lambda: trainer.confusion, has_validation=True)
        TrainingLoop(
            trainer,
            make_loader(easy_dataset),
            make_loader(easy_dataset, "validation"),
            StepSchedule(150, 5, 30),
            history,
            [ConstantPrediction(), best, recording],
        ).run()
        accuracies = [
            entry.validation_accuracy
            for entry in history.entries[1:]
            if entry.validation_accuracy is not None
        ]
        assert len(accuracies) == 5
        assert best.snapshot is not None
        assert max(accuracies[3:]) < max(accuracies[:3])
        assert best.snapshot.metric == max(accuracies)
        best_index = accuracies.index(max(accuracies))
        assert best.snapshot.entry.step == 30 * (best_index + 1) <= 90
        assert have_same_bits(best.snapshot.weights, recording.weights[best_index])
        assert not have_same_bits(best.snapshot.weights, trainer.network.get_weights())

    def test_the_last_weights_are_kept_without_a_validation_split(self, tmp_path, caplog):
        dataset = write_dataset(tmp_path / "data", {"train": make_easy_rows(TRAIN_ROWS, 5)})
        with caplog.at_level("INFO"):
            model_info = train(
                str(dataset), str(tmp_path / "run"), make_config("training.validate_every_steps=4")
            )
        assert (
            "there is no validation split: keeping the weights of the last step" in caplog.messages
        )
        assert (model_info.best_step, model_info.best_accuracy) == (10, None)
        rows = read_csv_rows(tmp_path / "run" / "history.csv")
        assert [row["step"] for row in rows] == ["0", "4", "8", "10"]
        assert {row["validation_loss"] + row["validation_accuracy"] for row in rows} == {""}
        trainer = make_trainer()
        run_loop(trainer, tmp_path, dataset, StepSchedule(10, 5, 10), validation=None, shuffle=True)
        assert have_same_bits(load_weights(tmp_path / "run"), trainer.network.get_weights())
        assert "validation accuracy not validated" in format_report(
            model_info, str(tmp_path / "run")
        )


def compute_logits(model: keras.Model, pixels: np.ndarray) -> np.ndarray:
    """Return the logits of the network inside a serving model, (n, classes)."""
    normalized = model.get_layer("normalization")(pixels[..., None].astype(np.float32))
    (network,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
    return network(normalized).numpy()


class TestTemperature:
    """The number by which the finished model divides its logits."""

    def test_the_model_contains_the_best_temperature_on_validation(self, easy_dataset, tmp_path):
        model_info = train(
            str(easy_dataset), str(tmp_path), make_config("training.select_best_by=last")
        )
        model = TrainedModel.open(tmp_path).load_network()
        batches = make_loader(easy_dataset, "validation").iterate_stored_batches(["label"])
        pixels, labels = map(
            np.concatenate,
            zip(*((batch, origins["label"]) for batch, origins in batches), strict=True),
        )
        logits = compute_logits(model, pixels)

        def compute_loss(temperature: float) -> float:
            return float(
                keras.losses.sparse_categorical_crossentropy(
                    labels, logits / temperature, from_logits=True
                )
                .numpy()
                .mean()
            )

        assert model_info.temperature != 1
        best_loss = compute_loss(model_info.temperature)
        assert best_loss < min(
            compute_loss(model_info.temperature * 0.9),
            compute_loss(model_info.temperature * 1.1),
            compute_loss(1.0),
        )
        probabilities = model(pixels[..., None].astype(np.float32)).numpy()
        expected = tf.nn.softmax(logits / model_info.temperature).numpy()
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)

    def test_a_configured_temperature_is_used(self, easy_dataset, tmp_path):
        model_info = train(str(easy_dataset), str(tmp_path), make_config("model.temperature=2.5"))
        model = TrainedModel.open(tmp_path).load_network()
        assert model_info.temperature == 2.5
        pixels = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE), np.uint8)
        expected = tf.nn.softmax(compute_logits(model, pixels) / 2.5).numpy()
        probabilities = model(pixels[..., None].astype(np.float32)).numpy()
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)

    def test_the_temperature_is_1_without_validation(self, tmp_path):
        dataset = write_dataset(tmp_path / "data", {"train": make_easy_rows(TRAIN_ROWS, 5)})
        model_info = train(str(dataset), str(tmp_path / "run"), make_config())
        model = TrainedModel.open(tmp_path / "run").load_network()
        assert model_info.temperature == 1
        assert "temperature" not in [layer.name for layer in model.layers]


def list_messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the package's messages: TensorFlow, too, warns if a process traces many functions."""
    return [record.message for record in caplog.records if record.name.startswith("fer_pipeline")]


class TestTrain:
    def test_the_folder_holds_the_outputs_and_nothing_else(self, trained_run):
        folder, _ = trained_run
        assert {path.name for path in folder.iterdir()} == {*RUN_FILES, "tensorboard"}

    def test_model_json_describes_the_run(self, trained_run, easy_dataset):
        folder, model_info = trained_run
        assert trained_model.read_model_info(folder) == model_info
        network = registry.build_network("system_a", SIZE, 3, {"hidden": 8})
        rows = read_csv_rows(folder / "history.csv")
        accuracies = [float(row["validation_accuracy"]) for row in rows]
        best_row = max(range(1, len(rows)), key=accuracies.__getitem__)
        versions = provenance.collect_package_versions("tensorflow", "keras", "numpy", "petastorm")
        assert json.loads((folder / "model.json").read_text()) == {
            "format": "fer_pipeline run",
            "format_version": 2,
            "classes": CLASSES,
            "size": SIZE,
            "normalization": {"kind": "centered", "scale": 1 / 128, "offset": -1.0},
            "enhancement": {"denoise": 0.0, "equalize": False, "local_contrast": False},
            "dataset_checksum": CHECKSUM,
            "network": "system_a",
            "options": {"hidden": 8},
            "parameters": network.count_params(),
            "precision": "float32",
            "best_step": int(rows[best_row]["step"]),
            "best_restart": 0,
            "temperature": model_info.temperature,
            "best_accuracy": accuracies[best_row],
            "best_class_accuracies": model_info.best_class_accuracies,
            "teachers": [],
            "seed": 0,
            "workers": 1,
            "sha256": trained_model.compute_sha256(folder / "model.keras"),
            "versions": versions,
        }
        assert {"keras", "numpy", "petastorm", "python", "fer_pipeline"} <= set(versions)
        assert any(name.startswith("tensorflow") for name in versions)
        # The saved model reaches the stored accuracies.
        model = TrainedModel.open(folder).load_network()
        pixels, columns = zip(
            *make_loader(easy_dataset, "validation").iterate_stored_batches(["label"]), strict=True
        )
        labels = np.concatenate([part["label"] for part in columns])
        is_correct = model(np.concatenate(pixels)[..., None]).numpy().argmax(axis=1) == labels
        assert is_correct.mean() == pytest.approx(model_info.best_accuracy)
        assert model_info.best_class_accuracies == {
            name: pytest.approx(is_correct[labels == label].mean())
            for label, name in enumerate(CLASSES)
        }

    def test_the_stored_configuration_can_be_loaded(self, trained_run):
        folder, _ = trained_run
        assert load_config(folder / "config.yaml") == make_config()

    def test_settings_of_the_data_are_those_of_the_dataset(self, easy_dataset, tmp_path, caplog):
        dataset = tmp_path / "data"
        shutil.copytree(easy_dataset, dataset)
        manifest = json.loads((dataset / "manifest.json").read_text())
        dataset_settings = ["classes=[angry, happy, sad]", "image.size=16", "split.validation=0.3"]
        manifest["config"] = load_config(None, dataset_settings).to_dict()
        (dataset / "manifest.json").write_text(json.dumps(manifest))
        with caplog.at_level("WARNING"):
            train(str(dataset), str(tmp_path / "one"), make_config(steps=1))
            assert list_messages(caplog) == []
            config = make_config("image.size=48", "image.normalization=centered", steps=1)
            train(str(dataset), str(tmp_path / "two"), config)
        assert list_messages(caplog) == [
            "the dataset was made with a different image.size than is configured; the dataset's is"
            " used"
        ]
        expected_config = make_config(*dataset_settings, steps=1)
        for run in ("one", "two"):
            assert load_config(tmp_path / run / "config.yaml") == expected_config

    def test_the_plots_are_large_and_not_empty(self, trained_run):
        for name in ("accuracy.png", "loss.png"):
            picture = read_image(trained_run[0] / name)
            assert min(picture.shape[:2]) > 300
            assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20

    def test_the_report_lists_validations_and_the_saved_model(self, trained_run):
        folder, model_info = trained_run
        lines = format_report(model_info, str(folder)).splitlines()
        assert lines[0].split() == [
            *("step", "epoch", "loss", "accuracy"),
            *("val", "loss", "val", "accuracy", "mean", "class", "rate"),
        ]
        rows = read_csv_rows(folder / "history.csv")
        assert lines[1].split() == [
            *("0", "0", "-", "-"),
            f"{float(rows[0]['validation_loss']):.4f}",
            f"{float(rows[0]['validation_accuracy']):.2%}",
            f"{float(rows[0]['validation_mean_class_accuracy']):.2%}",
            "-",
        ]
        assert lines[2].split()[-1] == "0.02"
        assert [line.split()[0] for line in lines[1:4]] == ["0", "5", "10"]
        assert len({len(line) for line in lines[:4]}) == 1
        assert lines[4:] == [
            "",
            f"system_a, {model_info.parameters:,} parameters; kept: step {model_info.best_step},"
            f" validation accuracy {model_info.best_accuracy:.2%};"
            f" temperature {model_info.temperature:.3f}",
            f"model {folder / 'model.keras'}",
        ]

    @pytest.mark.parametrize(
        "options",
        [
            ["loader.cache_in_memory=true"],
            ["loader.deterministic=false"],
            ["loader.shuffle_buffer=7"],
            ["loader.batch_size=1000", "inference.batch_size=1"],
        ],
        ids=str,
    )
    def test_training_works_with_other_loader_settings(self, easy_dataset, tmp_path, options):
        model_info = train(str(easy_dataset), str(tmp_path), make_config(*options))
        rows = read_csv_rows(tmp_path / "history.csv")
        assert rows[-1]["step"] == "10"
        assert float(rows[-1]["minibatch_loss"]) < float(rows[0]["validation_loss"])
        assert str(model_info.best_step) in [row["step"] for row in rows[1:]]

    def test_stored_floats_and_pixels_give_the_same_bits(self, tmp_path):
        splits = {"train": make_easy_rows(TRAIN_ROWS, 5), "validation": make_easy_rows(20, 6)}
        standard = Normalization.standard(66_145_536, 8_561_000_000, 1_388_000_000_000)
        for dtype in ("uint8", "float32"):
            dataset = write_dataset(tmp_path / dtype, splits, dtype=dtype, normalization=standard)
            model_info = train(str(dataset), str(tmp_path / f"run {dtype}"), make_config())
            assert model_info.normalization == standard
        assert have_same_bits(
            load_weights(tmp_path / "run uint8"), load_weights(tmp_path / "run float32")
        )

    def test_dataset_and_run_may_be_file_urls(self, easy_dataset, tmp_path):
        train(easy_dataset.as_uri(), (tmp_path / "run").as_uri(), make_config(steps=1))
        assert set(read_top_files(tmp_path / "run")) == RUN_FILES


def test_the_easy_dataset_has_the_described_rows(easy_dataset):
    manifest = Manifest.model_validate_json((easy_dataset / "manifest.json").read_text())
    assert (manifest.row_count(Split.TRAIN), manifest.row_count(Split.VALIDATION)) == (
        TRAIN_ROWS,
        VALIDATION_ROWS,
    )
    assert (manifest.classes, manifest.image.size, manifest.checksum) == (CLASSES, SIZE, CHECKSUM)
