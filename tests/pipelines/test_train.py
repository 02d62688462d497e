import contextlib
import csv
import itertools
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import keras
import numpy as np
import pytest
import tensorflow as tf

from fer_pipeline.config import load_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.manifest import Manifest
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, DatasetError, RunError, StorageError
from fer_pipeline.io import interrupts
from fer_pipeline.io import versions as provenance
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.training.callbacks import BestWeights
from fer_pipeline.learning.training.history import History
from fer_pipeline.learning.training.loop import StepSchedule, TrainingLoop
from fer_pipeline.learning.training.losses import ClassificationLoss
from fer_pipeline.learning.training.trainer import Trainer, enable_determinism
from fer_pipeline.pipelines.train import format_report, train

ROOT = Path(__file__).resolve().parents[2]
JOB = ROOT / "jobs" / "train.py"
SIZE, CLASSES = 16, ["angry", "happy", "sad"]
TRAIN, VALIDATION = 115, 40  # rows of the easy dataset
CHECKSUM = "fedcba9876543210"
OUTPUTS = {
    *("model.keras", "model.weights.h5", "architecture.json", "model.json", "history.csv"),
    *("accuracy.png", "loss.png", "config.yaml"),
}


def chosen(*overrides, seed=0, batch_size=23, steps=10):
    """A configuration; by default an epoch is five steps."""
    length = [f"training.steps={steps}"] if steps else []
    return load_config(
        None,
        [
            f"seed={seed}",
            f"loader.batch_size={batch_size}",
            "model.options.hidden=8",
            "training.optimizer.learning_rate=0.02",
            *length,
            *overrides,
        ],
    )


def make_loader(dataset, split="train", batch_size=23, *, shuffle=False, seed=0):
    options = LoaderOptions(batch_size, shuffle=shuffle, seed=seed)
    return BatchLoader(StoredDataset.open(dataset), Split(split), options)


def make_trainer(learning_rate=0.02, seed=0):
    enable_determinism(seed)
    network = registry.build_network("system_a", SIZE, len(CLASSES), {"hidden": 8})
    model = serving_model.build_serving_model(network, SIZE, Normalization.centered())
    return Trainer(
        network, model, keras.optimizers.SGD(learning_rate), ClassificationLoss(len(CLASSES))
    )


def fit(trainer, folder, dataset, length, callbacks=(), *, validation="validation", **options):
    history = History.create(folder / "history.csv")
    validation_loader = make_loader(dataset, validation) if validation else None
    train_loader = make_loader(dataset, **options)
    TrainingLoop(trainer, train_loader, validation_loader, length, history, callbacks).run()
    return history.entries


def table(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def contents(folder):
    """The files; the folder of TensorBoard is told apart, see `test_tracking`."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def weights_of(folder):
    return TrainedModel.open(folder).load_network().get_weights()


def same(one, other):
    return all(a.tobytes() == b.tobytes() for a, b in zip(one, other, strict=True))


def network_guesses(trainer, images):
    return trainer.network(images).numpy().argmax(axis=1)


class Logs(keras.callbacks.Callback):
    """Everything that the loop tells."""

    def __init__(self):
        super().__init__()
        self.epochs, self.told, self.weights = [], [], []

    def on_train_begin(self, logs=None):
        self.told.append("begin")

    def on_epoch_begin(self, epoch, logs=None):
        self.told.append(("epoch", epoch))

    def on_epoch_end(self, epoch, logs=None):
        self.told.append(("end", epoch))
        self.epochs.append(dict(logs))
        self.weights.append(self.model.get_weights())

    def on_train_end(self, logs=None):
        self.told.append("end")


class TestStep:
    def by_hand(self, weights, images, labels, rate):
        """One step of plain gradient descent on the mean cross-entropy, and that before it."""
        network = registry.build_network("system_a", SIZE, len(CLASSES), {"hidden": 8})
        network.set_weights(weights)
        with tf.GradientTape() as tape:
            logits = network(images)
            likely = tf.gather(tf.nn.log_softmax(logits), labels, axis=1, batch_dims=1)
            loss = -tf.reduce_mean(likely)
        gradients = tape.gradient(loss, network.trainable_variables)
        moved = [w - rate * g.numpy() for w, g in zip(weights, gradients, strict=True)]
        return moved, float(loss), float(np.mean(logits.numpy().argmax(axis=1) == labels))

    def test_is_gradient_descent_on_the_mean_of_the_batch(self, easy_dataset, tmp_path):
        trainer = make_trainer(0.03)
        before = trainer.network.get_weights()
        (images, labels) = next(make_loader(easy_dataset, batch_size=TRAIN).iterate_epoch(0))
        assert len(labels) == TRAIN
        expected, loss, accuracy = self.by_hand(before, images, labels.numpy(), 0.03)
        entries = fit(trainer, tmp_path, easy_dataset, StepSchedule(1, 1, 1), batch_size=TRAIN)
        after = trainer.network.get_weights()
        assert not any(np.array_equal(one, other) for one, other in zip(before, after, strict=True))
        for found, wanted in zip(after, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-6)
        assert entries[1].minibatch_loss == pytest.approx(loss, rel=1e-5)
        assert entries[1].minibatch_accuracy == pytest.approx(accuracy)

    def test_the_last_small_batch_of_an_epoch_counts_as_a_batch(self, easy_dataset, tmp_path):
        trainer = make_trainer()
        weights = trainer.network.get_weights()
        batches = list(make_loader(easy_dataset, batch_size=100).iterate_epoch(0))
        assert [len(labels) for _, labels in batches] == [100, 15]
        # And the next epoch begins again at the first.
        for images, labels in [*batches, batches[0]]:
            weights, _, _ = self.by_hand(weights, images, labels.numpy(), 0.02)
        fit(trainer, tmp_path, easy_dataset, StepSchedule(3, 2, 3), batch_size=100)
        for found, wanted in zip(trainer.network.get_weights(), weights, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-5)

    def test_validation_is_measured_over_its_images(self, easy_dataset, tmp_path):
        trainer = make_trainer()
        images, labels = next(make_loader(easy_dataset, "validation", 1000).iterate_epoch(0))
        assert len(labels) == VALIDATION
        weights = trainer.network.get_weights()
        _, loss, accuracy = self.by_hand(weights, images, labels.numpy(), 0)
        # 40 images in batches of 23: the mean is that of the images, not of the batches.
        found = trainer.evaluate(make_loader(easy_dataset, "validation"))
        right = network_guesses(trainer, images) == labels.numpy()
        by_class = [right[labels.numpy() == label].mean() for label in range(len(CLASSES))]
        assert found == {
            "loss": pytest.approx(loss, rel=1e-5),
            "accuracy": pytest.approx(accuracy),
            "mean_class_accuracy": pytest.approx(np.mean(by_class)),
        }
        assert trainer.evaluate(make_loader(easy_dataset, "validation")) == found
        assert same(trainer.network.get_weights(), weights)
        entries = fit(trainer, tmp_path, easy_dataset, StepSchedule(1, 5, 1))
        first = entries[0]
        assert (
            first.validation_loss,
            first.validation_accuracy,
            first.validation_mean_class_accuracy,
        ) == tuple(found.values())

    def test_the_first_interval_is_not_counted_into_the_second(self, easy_dataset, tmp_path):
        # A rate that changes nothing: both intervals measure the same rows.
        entries = fit(make_trainer(1e-12), tmp_path, easy_dataset, StepSchedule(10, 5, 5))
        assert entries[1].minibatch_loss == pytest.approx(entries[2].minibatch_loss, rel=1e-5)
        assert entries[1].minibatch_accuracy == entries[2].minibatch_accuracy


class TestValidationIntervals:
    @pytest.mark.parametrize(
        ("length", "expected"),
        [
            (["training.epochs=2"], [(0, 0), (5, 1), (10, 2)]),
            (
                ["training.epochs=2", "training.validate_every_steps=4"],
                [(0, 0), (4, 1), (8, 2), (10, 2)],
            ),
            # The last interval is short.
            (["training.steps=7"], [(0, 0), (5, 1), (7, 2)]),
            (
                ["training.steps=7", "training.validate_every_steps=3"],
                [(0, 0), (3, 1), (6, 2), (7, 2)],
            ),
            (
                ["training.steps=3", "training.validate_every_steps=1"],
                [(0, 0), (1, 1), (2, 1), (3, 1)],
            ),
            # Larger than the steps, and over two epochs.
            (["training.steps=4", "training.validate_every_steps=99"], [(0, 0), (4, 1)]),
            (["training.steps=12", "training.validate_every_steps=12"], [(0, 0), (12, 3)]),
        ],
        ids=lambda value: " ".join(value) if isinstance(value[0], str) else "",
    )
    def test_of_the_history(self, easy_dataset, tmp_path, length, expected):
        info = train(str(easy_dataset), str(tmp_path / "run"), chosen(*length, steps=None))
        rows = table(tmp_path / "run" / "history.csv")
        assert [(int(row["step"]), int(row["epoch"])) for row in rows] == expected
        first, *others = rows
        assert first["minibatch_loss"] == first["minibatch_accuracy"] == ""
        for row in others:
            assert math.isfinite(float(row["minibatch_loss"]))
            assert 0 <= float(row["minibatch_accuracy"]) <= 1
        # Five batches of 23 are an epoch of all rows.
        steps = [step for step, _ in expected]
        made = [later - before for before, later in itertools.pairwise(steps)]
        assert [row["rows"] for row in rows] == ["", *(str(23 * count) for count in made)]
        for row in rows:
            assert math.isfinite(float(row["validation_loss"]))
            # A whole number of the images.
            right = float(row["validation_accuracy"]) * VALIDATION
            assert right == pytest.approx(round(right), abs=1e-4)
        assert info.best_step in [step for step, _ in expected[1:]]

    def test_many_steps_of_a_small_epoch(self, easy_dataset, tmp_path):
        entries = fit(
            make_trainer(),
            tmp_path,
            easy_dataset,
            StepSchedule(9, 2, 9),
            batch_size=100,
            shuffle=True,
        )
        assert [(made.step, made.epoch) for made in entries] == [(0, 0), (9, 5)]


class TestLearning:
    def test_the_loss_falls_on_what_is_easy(self, easy_dataset, tmp_path):
        info = train(
            str(easy_dataset),
            str(tmp_path),
            chosen("training.validate_every_steps=30", steps=150, batch_size=16),
        )
        rows = table(tmp_path / "history.csv")
        losses = [float(row["minibatch_loss"]) for row in rows[1:]]
        assert losses[-1] < 0.5 * losses[0]
        assert float(rows[-1]["validation_loss"]) < 0.5 * float(rows[0]["validation_loss"])
        assert info.best_accuracy > 0.9
        # And what is kept does it, from raw pixels.
        model = TrainedModel.open(tmp_path).load_network()
        pixels, labels = zip(
            *(
                (p, o["label"])
                for p, o in make_loader(easy_dataset, "validation").iterate_stored_batches(
                    ["label"]
                )
            ),
            strict=True,
        )
        guesses = model(np.concatenate(pixels)[..., None]).numpy().argmax(axis=1)
        assert (guesses == np.concatenate(labels)).mean() == pytest.approx(info.best_accuracy)

    def test_a_seed_gives_the_same_bits(self, easy_dataset, tmp_path):
        for name, seed in (("a", 3), ("b", 3), ("c", 4)):
            train(str(easy_dataset), str(tmp_path / name), chosen(seed=seed))
        one, again, other = (tmp_path / name for name in "abc")
        assert same(weights_of(one), weights_of(again))
        assert (one / "history.csv").read_bytes() == (again / "history.csv").read_bytes()
        assert not same(weights_of(one), weights_of(other))
        assert (one / "history.csv").read_bytes() != (other / "history.csv").read_bytes()

    def test_the_order_of_the_rows_follows_from_the_seed_too(self, easy_dataset, tmp_path):
        # The same first weights, another order.
        found = []
        for seed in (1, 2):
            trainer = make_trainer()
            fit(trainer, tmp_path, easy_dataset, StepSchedule(5, 5, 5), shuffle=True, seed=seed)
            found.append(trainer.network.get_weights())
        assert not same(*found)

    def test_validation_changes_nothing(self, easy_dataset, tmp_path):
        found = []
        for every, validation in ((10, "validation"), (2, "validation"), (10, None)):
            trainer = make_trainer()
            fit(
                trainer,
                tmp_path,
                easy_dataset,
                StepSchedule(10, 5, every),
                validation=validation,
                shuffle=True,
            )
            found.append(trainer.network.get_weights())
        assert same(found[0], found[1])
        assert same(found[0], found[2])


class TestWhatIsKept:
    def test_the_best_model_where_later_validations_are_worse(self, easy_dataset, tmp_path):
        class Spoil(keras.callbacks.Callback):
            """Makes the model say always the same from the fourth validation on."""

            def on_epoch_begin(self, epoch, logs=None):
                if epoch >= 3:
                    last = self.model.get_layer("system_a").layers[-1]
                    kernel, bias = last.get_weights()
                    last.set_weights([0 * kernel, 0 * bias - [0, 1000, 2000]])

        trainer, seen = make_trainer(), Logs()
        history = History.create(tmp_path / "history.csv")
        best = BestWeights("val_accuracy", history, lambda: trainer.confusion, has_validation=True)
        TrainingLoop(
            trainer,
            make_loader(easy_dataset),
            make_loader(easy_dataset, "validation"),
            StepSchedule(150, 5, 30),
            history,
            [Spoil(), best, seen],
        ).run()
        accuracies = [made.validation_accuracy for made in history.entries[1:]]
        assert max(accuracies[3:]) < max(accuracies[:3])
        assert best.snapshot.metric == max(accuracies)
        number = accuracies.index(max(accuracies))
        assert best.snapshot.entry.step == 30 * (number + 1) <= 90
        assert same(best.snapshot.weights, seen.weights[number])
        assert not same(best.snapshot.weights, trainer.network.get_weights())

    def test_the_last_model_without_a_validation_split(
        self, bright_and_dark, write_dataset, tmp_path, caplog
    ):
        data = write_dataset(tmp_path / "data", {"train": bright_and_dark(TRAIN, 5)})
        with caplog.at_level("INFO"):
            info = train(
                str(data), str(tmp_path / "run"), chosen("training.validate_every_steps=4")
            )
        assert (
            "there is no validation split: keeping the weights of the last step" in caplog.messages
        )
        assert (info.best_step, info.best_accuracy) == (10, None)
        rows = table(tmp_path / "run" / "history.csv")
        assert [row["step"] for row in rows] == ["0", "4", "8", "10"]
        assert {row["validation_loss"] + row["validation_accuracy"] for row in rows} == {""}
        trainer = make_trainer()
        fit(trainer, tmp_path, data, StepSchedule(10, 5, 10), validation=None, shuffle=True)
        assert same(weights_of(tmp_path / "run"), trainer.network.get_weights())
        assert "validation accuracy not validated" in format_report(info, str(tmp_path / "run"))


class TestTemperature:
    """What the finished model divides its logits by."""

    def logits(self, model, pixels):
        given = model.get_layer("normalization")(pixels[..., None].astype(np.float32))
        (network,) = (layer for layer in model.layers if isinstance(layer, keras.Model))
        return network(given).numpy()

    def test_is_the_best_on_validation_and_part_of_the_model(self, easy_dataset, tmp_path):
        info = train(str(easy_dataset), str(tmp_path), chosen("training.select_best_by=last"))
        model = TrainedModel.open(tmp_path).load_network()
        rows = make_loader(easy_dataset, "validation").iterate_stored_batches(["label"])
        pixels, labels = map(np.concatenate, zip(*((p, o["label"]) for p, o in rows), strict=True))
        logits = self.logits(model, pixels)

        def loss(temperature):
            return float(
                keras.losses.sparse_categorical_crossentropy(
                    labels, logits / temperature, from_logits=True
                )
                .numpy()
                .mean()
            )

        assert info.temperature != 1
        best = loss(info.temperature)
        assert best < min(loss(info.temperature * 0.9), loss(info.temperature * 1.1), loss(1.0))
        probabilities = model(pixels[..., None].astype(np.float32)).numpy()
        expected = tf.nn.softmax(logits / info.temperature).numpy()
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)

    def test_can_be_given(self, easy_dataset, tmp_path):
        info = train(str(easy_dataset), str(tmp_path), chosen("model.temperature=2.5"))
        model = TrainedModel.open(tmp_path).load_network()
        assert info.temperature == 2.5
        pixels = np.random.default_rng(0).integers(0, 256, (5, SIZE, SIZE), np.uint8)
        expected = tf.nn.softmax(self.logits(model, pixels) / 2.5).numpy()
        given = model(pixels[..., None].astype(np.float32)).numpy()
        np.testing.assert_allclose(given, expected, atol=1e-6)

    def test_is_1_without_validation(self, bright_and_dark, write_dataset, tmp_path):
        data = write_dataset(tmp_path / "data", {"train": bright_and_dark(TRAIN, 5)})
        info = train(str(data), str(tmp_path / "run"), chosen())
        model = TrainedModel.open(tmp_path / "run").load_network()
        assert info.temperature == 1
        assert "temperature" not in [layer.name for layer in model.layers]


class TestCallbacks:
    def test_hear_of_each_round(self, easy_dataset, tmp_path):
        logs = Logs()
        entries = fit(make_trainer(), tmp_path, easy_dataset, StepSchedule(7, 5, 3), [logs])
        assert logs.told == [
            "begin",
            *(told for n in range(3) for told in (("epoch", n), ("end", n))),
            "end",
        ]
        assert logs.epochs == [
            {
                "loss": made.minibatch_loss,
                "accuracy": made.minibatch_accuracy,
                "val_loss": made.validation_loss,
                "val_accuracy": made.validation_accuracy,
                "val_mean_class_accuracy": made.validation_mean_class_accuracy,
            }
            for made in entries[1:]
        ]

    def test_hear_of_no_validation_that_was_not(self, easy_dataset, tmp_path):
        logs = Logs()
        fit(make_trainer(), tmp_path, easy_dataset, StepSchedule(2, 5, 2), [logs], validation=None)
        assert [set(told) for told in logs.epochs] == [{"loss", "accuracy"}]

    @pytest.mark.parametrize(("monitor", "mode"), [("val_accuracy", "max"), ("loss", "auto")])
    def test_early_stopping(self, easy_dataset, tmp_path, monitor, mode):
        # The first validation is the best: none is better by ten.
        stop = keras.callbacks.EarlyStopping(monitor, mode=mode, patience=2, min_delta=10)
        logs, trainer = Logs(), make_trainer()
        entries = fit(trainer, tmp_path, easy_dataset, StepSchedule(50, 5, 5), [stop, logs])
        assert [made.step for made in entries] == [0, 5, 10, 15]
        assert (trainer.step, stop.stopped_epoch) == (15, 2)
        assert logs.told[-2:] == [("end", 2), "end"]

    def test_what_was_stopped_before_begins_anew(self, easy_dataset, tmp_path):
        trainer = make_trainer()
        trainer.model.stop_training = True
        assert len(fit(trainer, tmp_path, easy_dataset, StepSchedule(4, 5, 2))) == 3

    def test_early_stopping_restores_the_best_weights(self, easy_dataset, tmp_path):
        stop = keras.callbacks.EarlyStopping(
            "val_loss", mode="max", patience=1, restore_best_weights=True
        )
        logs, trainer = Logs(), make_trainer()
        fit(trainer, tmp_path, easy_dataset, StepSchedule(100, 5, 20), [logs, stop])
        assert len(logs.epochs) > 1
        worst = max(range(len(logs.epochs)), key=lambda index: logs.epochs[index]["val_loss"])
        assert same(trainer.network.get_weights(), logs.weights[worst])

    @pytest.mark.usefixtures("interruptible")
    def test_an_interruption_that_one_of_them_swallows(self, easy_dataset, tmp_path):
        class Deaf(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                with contextlib.suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)

        with interrupts.record_interrupts(), pytest.raises(KeyboardInterrupt):
            fit(make_trainer(), tmp_path, easy_dataset, StepSchedule(10, 5, 2), [Deaf()])

    def test_a_schedule_of_the_learning_rate(self, easy_dataset, tmp_path):
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.0)
        trainer = make_trainer()
        before = trainer.network.get_weights()
        fit(trainer, tmp_path, easy_dataset, StepSchedule(5, 5, 5), [schedule])
        assert same(trainer.network.get_weights(), before)

    def test_others_of_keras(self, easy_dataset, tmp_path):
        callbacks = [
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.History(),
        ]
        entries = fit(make_trainer(), tmp_path, easy_dataset, StepSchedule(10, 5, 5), callbacks)
        assert {path.name for path in tmp_path.glob("*.keras")} == {"1.keras", "2.keras"}
        assert callbacks[-1].history["val_loss"] == [made.validation_loss for made in entries[1:]]
        logged = [float(row["val_loss"]) for row in table(tmp_path / "log.csv")]
        assert logged == pytest.approx(callbacks[-1].history["val_loss"])


def one_line(error):
    message = str(error.value)
    assert "\n" not in message
    return message


REMEDY = (
    "; reduce training.optimizer.learning_rate (1e+30 in the last step) or set"
    " training.optimizer.global_clipnorm"
)


class TestNoNumber:
    @pytest.mark.parametrize(
        ("steps", "every"), [(6, 3), (120, 120)], ids=["a validation", "between validations"]
    )
    def test_the_loss(self, easy_dataset, tmp_path, steps, every):
        length = StepSchedule(steps, 5, every)
        with pytest.raises(RunError) as error:
            fit(make_trainer(1e30), tmp_path, easy_dataset, length, shuffle=True)
        message = one_line(error)
        assert message.startswith("the loss is nan after ")
        assert message.endswith(REMEDY)
        # The first step was sound and ruined the weights; the very next one is named.
        step = int(message.split()[5])
        assert step in (2, 3)
        assert f"(batch {step} of epoch 1)" in message
        assert "; the last finite loss was " in message
        assert " of 8 weight arrays are not finite;" in message

    def test_the_validation_loss_after_the_last_step(self, easy_dataset, tmp_path):
        # The loss of a batch is that before its step: the last step can ruin the network unseen.
        with pytest.raises(RunError) as error:
            fit(make_trainer(1e30), tmp_path, easy_dataset, StepSchedule(1, 5, 1), shuffle=True)
        message = one_line(error)
        assert message.startswith("the loss is nan after 1 steps (batch 1 of epoch 1);")
        assert message.endswith(REMEDY)

    def test_a_weight_beside_a_finite_loss(self, easy_dataset, tmp_path):
        def ruin(batch, logs):
            weight = trainer.network.weights[0]
            weight.assign(np.full(weight.shape, np.nan))

        trainer = make_trainer(0.5)
        last = keras.callbacks.LambdaCallback(on_train_batch_end=ruin)
        with pytest.raises(RunError) as error:
            fit(trainer, tmp_path, easy_dataset, StepSchedule(1, 5, 1), [last], shuffle=True)
        assert re.fullmatch(
            r"1 of 8 weight arrays are not finite after 1 steps, although the loss is finite"
            r" \(\d.*\)" + re.escape(REMEDY.replace("1e+30", "0.5")),
            one_line(error),
        )


def change_rows(by):
    """What a manifest says of the last file of a split, changed by a number of rows."""

    def claimed(file):
        rows = file.rows + by * ("part-00000" in file.path)
        return file.model_copy(update={"rows": rows})

    return claimed


class TestDataset:
    @pytest.mark.parametrize(
        ("by", "batch_size", "shuffle"),
        [(1, 23, True), (30, 1, False), (-1, 1, False), (-30, 23, True), (-30, 23, False)],
    )
    def test_an_epoch_that_is_not_whole(
        self, bright_and_dark, write_dataset, tmp_path, by, batch_size, shuffle
    ):
        rows = bright_and_dark(TRAIN, 5)
        data = write_dataset(tmp_path / "data", {"train": rows}, change_file=change_rows(by))
        loader = make_loader(data, batch_size=batch_size, shuffle=shuffle)
        steps = loader.steps_per_epoch
        message = (
            f"{data}: an epoch of the train split delivered 115 rows,"
            f" the manifest says {115 + by}; run preprocess again"
        )
        trainer = make_trainer()
        with pytest.raises(DatasetError) as error:
            trainer.evaluate(loader)
        assert one_line(error) == message
        with pytest.raises(DatasetError) as error:
            fit(
                trainer,
                tmp_path,
                data,
                StepSchedule(3 * steps, steps, steps),
                validation=None,
                batch_size=batch_size,
                shuffle=shuffle,
            )
        assert one_line(error) == message

    def test_the_last_epoch_that_is_not_whole(self, bright_and_dark, write_dataset, tmp_path):
        rows = bright_and_dark(TRAIN, 5)
        data = write_dataset(tmp_path / "data", {"train": rows}, change_file=change_rows(-30))
        with pytest.raises(DatasetError):
            train(str(data), str(tmp_path / "run"), chosen("training.epochs=1", steps=None))
        assert not (tmp_path / "run" / "model.json").exists()

    @pytest.mark.parametrize("way", ["all steps", "stopped", "failed"])
    def test_no_thread_is_left(self, easy_dataset, tmp_path, way):
        before = running()
        stop = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: setattr(stop.model, "stop_training", True)
        )
        rate = 1e30 if way == "failed" else 0.02
        callbacks = [stop] if way == "stopped" else []
        try:
            fit(
                make_trainer(rate),
                tmp_path,
                easy_dataset,
                StepSchedule(60, 115, 30),
                callbacks,
                batch_size=1,
            )
        except RunError:
            assert way == "failed"
        else:
            assert way != "failed"
        deadline = time.monotonic() + 5
        while not running() <= before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert running() <= before


def running():
    dummy = threading._DummyThread  # TensorFlow's threads that pass through Python
    return {thread for thread in threading.enumerate() if not isinstance(thread, dummy)}


@pytest.fixture(scope="module")
def trained(easy_dataset, tmp_path_factory):
    """A finished run, and what was said of it."""
    folder = tmp_path_factory.mktemp("trained") / "a" / "run"
    return folder, train(str(easy_dataset), str(folder), chosen())


def told(caplog):
    """What we have logged: TensorFlow, too, warns where many functions were traced in a process."""
    return [one.message for one in caplog.records if one.name.startswith("fer_pipeline")]


class TestTrain:
    def test_the_folder_holds_the_outputs_and_nothing_else(self, trained):
        folder, _ = trained
        assert {path.name for path in folder.iterdir()} == {*OUTPUTS, "tensorboard"}

    def test_model_json_tells_the_truth(self, trained, easy_dataset):
        folder, info = trained
        assert trained_model.read_model_info(folder) == info
        network = registry.build_network("system_a", SIZE, 3, {"hidden": 8})
        rows = table(folder / "history.csv")
        accuracies = [float(row["validation_accuracy"]) for row in rows]
        best = max(range(1, len(rows)), key=accuracies.__getitem__)
        versions = provenance.collect_package_versions(
            "tensorflow", "tensorflow-cpu", "keras", "numpy", "petastorm"
        )
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
            "best_step": int(rows[best]["step"]),
            "best_restart": 0,
            "temperature": info.temperature,
            "best_accuracy": accuracies[best],
            "best_class_accuracies": info.best_class_accuracies,
            "teachers": [],
            "seed": 0,
            "workers": 1,
            "sha256": trained_model.compute_sha256(folder / "model.keras"),
            "versions": versions,
        }
        assert {"keras", "numpy", "petastorm", "python", "fer_pipeline"} <= set(versions)
        assert any(name.startswith("tensorflow") for name in versions)
        # The model that is kept is as good as it says.
        model = TrainedModel.open(folder).load_network()
        pixels, others = zip(
            *make_loader(easy_dataset, "validation").iterate_stored_batches(["label"]), strict=True
        )
        labels = np.concatenate([part["label"] for part in others])
        right = model(np.concatenate(pixels)[..., None]).numpy().argmax(axis=1) == labels
        assert right.mean() == pytest.approx(info.best_accuracy)
        assert info.best_class_accuracies == {
            name: pytest.approx(right[labels == label].mean()) for label, name in enumerate(CLASSES)
        }

    def test_the_configuration_can_be_used_again(self, trained):
        folder, _ = trained
        assert load_config(folder / "config.yaml") == chosen()

    def test_says_of_the_data_what_the_dataset_says(self, easy_dataset, tmp_path, caplog):
        data = tmp_path / "data"
        shutil.copytree(easy_dataset, data)
        manifest = json.loads((data / "manifest.json").read_text())
        made = ["classes=[angry, happy, sad]", "image.size=16", "split.validation=0.3"]
        manifest["config"] = load_config(None, made).to_dict()
        (data / "manifest.json").write_text(json.dumps(manifest))
        with caplog.at_level("WARNING"):
            train(str(data), str(tmp_path / "one"), chosen(steps=1))
            assert told(caplog) == []
            given = chosen("image.size=48", "image.normalization=centered", steps=1)
            train(str(data), str(tmp_path / "two"), given)
        assert told(caplog) == [
            "the dataset was made with a different image.size than is configured; the dataset's is"
            " used"
        ]
        expected = chosen(*made, steps=1)
        for run in ("one", "two"):
            assert load_config(tmp_path / run / "config.yaml") == expected

    def test_the_pictures_can_be_seen(self, trained):
        for name in ("accuracy.png", "loss.png"):
            picture = cv2.imread(str(trained[0] / name))
            assert min(picture.shape[:2]) > 300
            assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20

    def test_the_result_for_the_terminal(self, trained):
        folder, info = trained
        lines = format_report(info, str(folder)).splitlines()
        assert lines[0].split() == [
            *("step", "epoch", "loss", "accuracy"),
            *("val", "loss", "val", "accuracy", "mean", "class", "rate"),
        ]
        rows = table(folder / "history.csv")
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
            f"system_a, {info.parameters:,} parameters; kept: step {info.best_step},"
            f" validation accuracy {info.best_accuracy:.2%}; temperature {info.temperature:.3f}",
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
    def test_settings_of_the_feed(self, easy_dataset, tmp_path, options):
        info = train(str(easy_dataset), str(tmp_path), chosen(*options))
        rows = table(tmp_path / "history.csv")
        assert rows[-1]["step"] == "10"
        assert float(rows[-1]["minibatch_loss"]) < float(rows[0]["validation_loss"])
        assert str(info.best_step) in [row["step"] for row in rows[1:]]

    def test_what_is_stored_as_floats_gives_the_same_bits(
        self, bright_and_dark, write_dataset, tmp_path
    ):
        splits = {"train": bright_and_dark(TRAIN, 5), "validation": bright_and_dark(20, 6)}
        standard = Normalization.standard(66_145_536, 8_561_000_000, 1_388_000_000_000)
        for dtype in ("uint8", "float32"):
            data = write_dataset(tmp_path / dtype, splits, dtype=dtype, normalization=standard)
            info = train(str(data), str(tmp_path / f"run {dtype}"), chosen())
            assert info.normalization == standard
        assert same(weights_of(tmp_path / "run uint8"), weights_of(tmp_path / "run float32"))

    def test_file_urls(self, easy_dataset, tmp_path):
        train(easy_dataset.as_uri(), (tmp_path / "run").as_uri(), chosen(steps=1))
        assert set(contents(tmp_path / "run")) == OUTPUTS


class TestRefusals:
    def refused(self, kind, data, out, chosen=None, **options):
        before = contents(out) if out.is_dir() else None
        with pytest.raises(kind) as error:
            train(str(data), str(out), chosen or globals()["chosen"](), **options)
        # Nothing was begun.
        assert (contents(out) if out.is_dir() else None) == before
        return one_line(error)

    def test_a_run_that_is_there(self, easy_dataset, trained):
        folder, _ = trained
        assert self.refused(StorageError, easy_dataset, folder) == (
            f"{folder}: holds a finished training run already; --overwrite replaces it"
        )

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_folder_that_is_someone_elses(self, easy_dataset, tmp_path, overwrite):
        (tmp_path / "thesis.tex").write_text("three years of work")
        message = self.refused(StorageError, easy_dataset, tmp_path, overwrite=overwrite)
        assert message == (
            f"{tmp_path}: is not empty and not a finished training run (it holds thesis.tex);"
            " choose another folder"
        )

    def test_the_folder_of_a_dataset(self, bright_and_dark, write_dataset, tmp_path):
        data = write_dataset(tmp_path, {"train": bright_and_dark(20, 5)})
        with pytest.raises(StorageError, match="not a finished training run"):
            train(str(data), str(data), chosen(), overwrite=True)
        assert make_loader(data, batch_size=5).row_count == 20

    def test_a_file(self, easy_dataset, tmp_path):
        (tmp_path / "run").write_text("")
        message = self.refused(StorageError, easy_dataset, tmp_path / "run")
        assert message == f"{tmp_path / 'run'}: is a file; choose a folder"

    def test_no_dataset(self, tmp_path):
        message = self.refused(DatasetError, tmp_path / "none", tmp_path / "run")
        assert message.startswith(f"{tmp_path / 'none'}: no such folder")

    def test_a_dataset_without_training_rows(self, bright_and_dark, write_dataset, tmp_path):
        data = write_dataset(tmp_path / "data", {"test": bright_and_dark(20, 5)})
        message = self.refused(DatasetError, data, tmp_path / "run")
        assert message.startswith(f"{data}: the train split is empty; rows per split: train (0)")

    @pytest.mark.parametrize("overwrite", [False, True])
    def test_a_network_that_there_is_not(self, easy_dataset, trained, tmp_path, overwrite):
        folder = trained[0] if overwrite else tmp_path / "run"
        message = self.refused(
            ConfigError, easy_dataset, folder, chosen("model.name=system_aa"), overwrite=overwrite
        )
        assert message.startswith(
            "model.name: unknown network 'system_aa', did you mean system_a? "
        )


class TestOverwrite:
    @pytest.fixture
    def run(self, easy_dataset, tmp_path):
        train(str(easy_dataset), str(tmp_path / "run"), chosen())
        return tmp_path / "run"

    def test_replaces_all_of_it(self, easy_dataset, run):
        before = contents(run)
        other = chosen(seed=7, steps=6)
        info = train(str(easy_dataset), str(run), other, overwrite=True)
        after = contents(run)
        assert set(after) == OUTPUTS
        assert all(after[name] != before[name] for name in OUTPUTS)
        assert TrainedModel.open(run).info == info
        assert info.seed == 7
        assert load_config(run / "config.yaml") == other

    def test_that_fails_while_it_trains_leaves_the_old_run_whole(self, easy_dataset, run):
        before = contents(run)
        weights = weights_of(run)
        # It validates, and so keeps a model, before it fails.
        bad = chosen("training.optimizer.learning_rate=1e30", "training.validate_every_steps=1")
        with pytest.raises(RunError, match="the loss is nan"):
            train(str(easy_dataset), str(run), bad, overwrite=True)
        after = contents(run)
        assert {name: after[name] for name in OUTPUTS} == before
        left = {".unfinished", "unfinished.csv", "unfinished.yaml", "checkpoint.npz"}
        assert set(after) - OUTPUTS <= left
        assert same(weights_of(run), weights)
        # And can be tried again.
        train(str(easy_dataset), str(run), chosen(steps=6), overwrite=True)
        assert set(contents(run)) == OUTPUTS

    def test_that_fails_on_its_data_leaves_the_old_run_whole(
        self, bright_and_dark, write_dataset, run, tmp_path
    ):
        before = contents(run)
        rows = bright_and_dark(TRAIN, 5)
        data = write_dataset(tmp_path / "data", {"train": rows}, change_file=change_rows(1))
        with pytest.raises(DatasetError, match="delivered 115 rows, the manifest says 116"):
            train(str(data), str(run), chosen(), overwrite=True)
        after = contents(run)
        assert {name: after[name] for name in OUTPUTS} == before

    @pytest.mark.parametrize("name", sorted(OUTPUTS - {"model.json", "model.keras"}))
    def test_that_cannot_write_says_so(self, easy_dataset, run, name):
        (run / name).unlink()
        (run / name).mkdir()  # a file cannot take its place
        with pytest.raises(StorageError) as error:
            train(str(easy_dataset), str(run), chosen(seed=7), overwrite=True)
        assert str(run / name) in one_line(error)
        assert "cannot be written" in one_line(error)
        # Model and description are of one run, or there is none.
        if (run / "model.json").exists():
            TrainedModel.open(run).load_network()
        else:
            with pytest.raises(RunError, match="its training has not finished"):
                TrainedModel.open(run).load_network()

    def test_a_first_run_that_fails_is_no_run(self, easy_dataset, tmp_path):
        out = tmp_path / "run"
        with pytest.raises(RunError, match="the loss is nan"):
            train(str(easy_dataset), str(out), chosen("training.optimizer.learning_rate=1e30"))
        with pytest.raises(RunError, match="its training has not finished"):
            TrainedModel.open(out).load_network()
        # What it left is ours, and is replaced without being asked.
        train(str(easy_dataset), str(out), chosen())
        assert set(contents(out)) == OUTPUTS


def python(*arguments):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=200,
    )


class TestJob:
    def test_in_a_process_of_its_own(self, easy_dataset, trained, tmp_path):
        # The configuration of the run is all that it takes to make it again, to the last bit.
        folder, info = trained
        out = tmp_path / "run"
        command = [JOB, "--dataset", easy_dataset, "--output", out]
        done = python(*command, "--config", folder / "config.yaml")
        assert done.returncode == 0, done.stderr
        assert done.stdout == format_report(trained_model.read_model_info(out), str(out)) + "\n"
        assert "Warning" not in done.stderr
        assert "Traceback" not in done.stderr
        assert same(weights_of(out), weights_of(folder))
        assert (out / "history.csv").read_bytes() == (folder / "history.csv").read_bytes()
        assert trained_model.read_model_info(out).model_copy(update={"sha256": info.sha256}) == info

    def test_that_fails(self, easy_dataset, tmp_path):
        command = [JOB, "--dataset", easy_dataset, "--output", tmp_path / "run"]
        command += [
            "--set",
            "training.optimizer.learning_rate=1e30",
            "--set",
            "model.options.hidden=8",
        ]
        failed = python(*command, "--set", "loader.batch_size=16")
        assert failed.returncode == 1
        assert failed.stdout == ""
        assert failed.stderr.splitlines()[-1].startswith("error: the loss is nan after ")
        assert "Traceback" not in failed.stderr

    def test_that_has_nothing_to_train_on(self):
        for missing, given in (("--output", ["--dataset", "x"]), ("--dataset", ["--output", "x"])):
            refused = python(JOB, *given)
            assert refused.returncode == 2
            assert refused.stderr.splitlines()[-1] == (
                "spark-submit.sh train: error: the following arguments are required: " + missing
            )

    def test_of_preview_and_summarize(self, easy_dataset, tmp_path):
        """Neither trains nor needs a place for a run."""
        picture = tmp_path / "grid.png"
        shown = python(
            ROOT / "jobs" / "preview.py",
            "--dataset",
            easy_dataset,
            "--output",
            picture,
            "--set",
            "training.augmentation.rotation=20",
        )
        assert shown.returncode == 0, shown.stderr
        assert str(picture) in shown.stdout
        assert min(cv2.imread(str(picture)).shape[:2]) > 100
        summarize = [ROOT / "jobs" / "summarize.py", "--output", tmp_path / "net.png"]
        shown = python(*summarize, "--set", "image.size=28")
        assert shown.returncode == 0, shown.stderr
        assert "57,527 parameters" in shown.stdout

    def test_its_help_needs_no_tensorflow(self):
        code = (
            "import runpy, sys\n"
            "sys.argv = ['train', '--help']\n"
            "try:\n"
            f"    runpy.run_path({str(JOB)!r}, run_name='__main__')\n"
            "except SystemExit:\n"
            "    heavy = {'tensorflow', 'keras', 'matplotlib', 'pyspark', 'petastorm', 'pyarrow'}\n"
            "    print(sorted(heavy & set(sys.modules)))\n"
        )
        done = python("-c", code)
        assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
        for option in ("--dataset DIR", "--output RUN", "--overwrite", "--config FILE.yaml"):
            assert option in done.stdout


def test_the_easy_dataset_is_what_these_tests_say(easy_dataset):
    made = Manifest.model_validate_json((easy_dataset / "manifest.json").read_text())
    assert (made.row_count("train"), made.row_count("validation")) == (TRAIN, VALIDATION)
    assert (made.classes, made.image.size, made.checksum) == (CLASSES, SIZE, CHECKSUM)
