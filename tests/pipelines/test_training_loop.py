"""The training loop: steps, validations and callbacks."""

import contextlib
import itertools
import math
import signal

import keras
import numpy as np
import pytest
import tensorflow as tf

from fer_pipeline.io import interrupts
from fer_pipeline.learning.networks import registry
from fer_pipeline.learning.training.loop import StepSchedule
from fer_pipeline.learning.training.trainer import Trainer
from fer_pipeline.pipelines.train import train
from tests.helpers.training import (
    CLASSES,
    SIZE,
    TRAIN_ROWS,
    VALIDATION_ROWS,
    RecordingCallback,
    have_same_bits,
    make_config,
    make_loader,
    make_trainer,
    read_csv_rows,
    run_loop,
)


def predict_labels(trainer: Trainer, images: tf.Tensor) -> np.ndarray:
    """Return the labels that the network predicts, (n,)."""
    return trainer.network(images).numpy().argmax(axis=1)


def descend_by_hand(
    weights: list[np.ndarray], images: tf.Tensor, labels: np.ndarray, rate: float
) -> tuple[list[np.ndarray], float, float]:
    """Make one step of plain gradient descent on the mean cross-entropy.

    Returns:
        The new weights, and the loss and the accuracy before the step.
    """
    network = registry.build_network("system_a", SIZE, len(CLASSES), {"hidden": 8})
    network.set_weights(weights)
    with tf.GradientTape() as tape:
        logits = network(images)
        likely = tf.gather(tf.nn.log_softmax(logits), labels, axis=1, batch_dims=1)
        loss = -tf.reduce_mean(likely)
    gradients = tape.gradient(loss, network.trainable_variables)
    moved = [w - rate * g.numpy() for w, g in zip(weights, gradients, strict=True)]
    return moved, float(loss), float(np.mean(logits.numpy().argmax(axis=1) == labels))


class TestStep:
    def test_a_step_is_gradient_descent_on_the_mean_loss_of_the_batch(self, easy_dataset, tmp_path):
        trainer = make_trainer(0.03)
        initial_weights = trainer.network.get_weights()
        (images, labels) = next(make_loader(easy_dataset, batch_size=TRAIN_ROWS).iterate_epoch(0))
        assert len(labels) == TRAIN_ROWS
        expected_weights, loss, accuracy = descend_by_hand(
            initial_weights, images, labels.numpy(), 0.03
        )
        entries = run_loop(
            trainer, tmp_path, easy_dataset, StepSchedule(1, 1, 1), batch_size=TRAIN_ROWS
        )
        weights = trainer.network.get_weights()
        assert not any(
            np.array_equal(first, second)
            for first, second in zip(initial_weights, weights, strict=True)
        )
        for weight, expected_weight in zip(weights, expected_weights, strict=True):
            np.testing.assert_allclose(weight, expected_weight, rtol=0, atol=1e-6)
        assert entries[1].minibatch_loss == pytest.approx(loss, rel=1e-5)
        assert entries[1].minibatch_accuracy == pytest.approx(accuracy)

    def test_the_small_last_batch_of_an_epoch_is_a_step(self, easy_dataset, tmp_path):
        trainer = make_trainer()
        expected_weights = trainer.network.get_weights()
        batches = list(make_loader(easy_dataset, batch_size=100).iterate_epoch(0))
        assert [len(labels) for _, labels in batches] == [100, 15]
        # The next epoch begins at the first batch again.
        for images, labels in [*batches, batches[0]]:
            expected_weights, _, _ = descend_by_hand(expected_weights, images, labels.numpy(), 0.02)
        run_loop(trainer, tmp_path, easy_dataset, StepSchedule(3, 2, 3), batch_size=100)
        for weight, expected in zip(trainer.network.get_weights(), expected_weights, strict=True):
            np.testing.assert_allclose(weight, expected, rtol=0, atol=1e-5)

    def test_validation_metrics_are_means_over_the_images(self, easy_dataset, tmp_path):
        trainer = make_trainer()
        images, labels = next(make_loader(easy_dataset, "validation", 1000).iterate_epoch(0))
        assert len(labels) == VALIDATION_ROWS
        weights = trainer.network.get_weights()
        _, loss, accuracy = descend_by_hand(weights, images, labels.numpy(), 0)
        # 40 images in batches of 23: the mean is over the images, not over the batches.
        metrics = trainer.evaluate(make_loader(easy_dataset, "validation"))
        is_correct = predict_labels(trainer, images) == labels.numpy()
        class_accuracies = [
            is_correct[labels.numpy() == label].mean() for label in range(len(CLASSES))
        ]
        assert metrics == {
            "loss": pytest.approx(loss, rel=1e-5),
            "accuracy": pytest.approx(accuracy),
            "mean_class_accuracy": pytest.approx(np.mean(class_accuracies)),
        }
        assert trainer.evaluate(make_loader(easy_dataset, "validation")) == metrics
        assert have_same_bits(trainer.network.get_weights(), weights)
        entries = run_loop(trainer, tmp_path, easy_dataset, StepSchedule(1, 5, 1))
        first = entries[0]
        assert (
            first.validation_loss,
            first.validation_accuracy,
            first.validation_mean_class_accuracy,
        ) == tuple(metrics.values())

    def test_the_metrics_of_an_interval_exclude_earlier_intervals(self, easy_dataset, tmp_path):
        # At this learning rate the weights stay: both intervals measure the same rows.
        entries = run_loop(make_trainer(1e-12), tmp_path, easy_dataset, StepSchedule(10, 5, 5))
        assert entries[1].minibatch_loss == pytest.approx(entries[2].minibatch_loss, rel=1e-5)
        assert entries[1].minibatch_accuracy == entries[2].minibatch_accuracy


class TestValidationIntervals:
    @pytest.mark.parametrize(
        ("settings", "expected"),
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
        ids=lambda argument: " ".join(argument) if isinstance(argument[0], str) else "",
    )
    def test_the_history_has_a_row_for_each_validation(
        self, easy_dataset, tmp_path, settings, expected
    ):
        model_info = train(
            str(easy_dataset), str(tmp_path / "run"), make_config(*settings, steps=None)
        )
        rows = read_csv_rows(tmp_path / "run" / "history.csv")
        assert [(int(row["step"]), int(row["epoch"])) for row in rows] == expected
        initial_row, *later_rows = rows
        assert initial_row["minibatch_loss"] == initial_row["minibatch_accuracy"] == ""
        for row in later_rows:
            assert math.isfinite(float(row["minibatch_loss"]))
            assert 0 <= float(row["minibatch_accuracy"]) <= 1
        # Five batches of 23 are an epoch of all rows.
        steps = [step for step, _ in expected]
        step_counts = [later - before for before, later in itertools.pairwise(steps)]
        assert [row["rows"] for row in rows] == ["", *(str(23 * count) for count in step_counts)]
        for row in rows:
            assert math.isfinite(float(row["validation_loss"]))
            # The number of correct images is whole.
            correct_count = float(row["validation_accuracy"]) * VALIDATION_ROWS
            assert correct_count == pytest.approx(round(correct_count), abs=1e-4)
        assert model_info.best_step in [step for step, _ in expected[1:]]

    def test_an_interval_may_span_several_epochs(self, easy_dataset, tmp_path):
        entries = run_loop(
            make_trainer(),
            tmp_path,
            easy_dataset,
            StepSchedule(9, 2, 9),
            batch_size=100,
            shuffle=True,
        )
        assert [(entry.step, entry.epoch) for entry in entries] == [(0, 0), (9, 5)]


class TestCallbacks:
    def test_callbacks_are_called_for_each_validation_interval(self, easy_dataset, tmp_path):
        recording = RecordingCallback()
        entries = run_loop(
            make_trainer(), tmp_path, easy_dataset, StepSchedule(7, 5, 3), [recording]
        )
        assert recording.events == [
            "begin",
            *(event for n in range(3) for event in (("epoch", n), ("end", n))),
            "end",
        ]
        assert recording.epochs == [
            {
                "loss": entry.minibatch_loss,
                "accuracy": entry.minibatch_accuracy,
                "val_loss": entry.validation_loss,
                "val_accuracy": entry.validation_accuracy,
                "val_mean_class_accuracy": entry.validation_mean_class_accuracy,
            }
            for entry in entries[1:]
        ]

    def test_the_logs_have_no_validation_metrics_without_validation(self, easy_dataset, tmp_path):
        recording = RecordingCallback()
        run_loop(
            make_trainer(),
            tmp_path,
            easy_dataset,
            StepSchedule(2, 5, 2),
            [recording],
            validation=None,
        )
        assert [set(epoch_logs) for epoch_logs in recording.epochs] == [{"loss", "accuracy"}]

    @pytest.mark.parametrize(("monitor", "mode"), [("val_accuracy", "max"), ("loss", "auto")])
    def test_early_stopping_ends_the_training(self, easy_dataset, tmp_path, monitor, mode):
        # No validation is better than the first by ten.
        stop = keras.callbacks.EarlyStopping(monitor, mode=mode, patience=2, min_delta=10)
        recording, trainer = RecordingCallback(), make_trainer()
        entries = run_loop(
            trainer, tmp_path, easy_dataset, StepSchedule(50, 5, 5), [stop, recording]
        )
        assert [entry.step for entry in entries] == [0, 5, 10, 15]
        assert (trainer.step, stop.stopped_epoch) == (15, 2)
        assert recording.events[-2:] == [("end", 2), "end"]

    def test_a_model_that_was_stopped_before_is_trained_again(self, easy_dataset, tmp_path):
        trainer = make_trainer()
        trainer.model.stop_training = True
        assert len(run_loop(trainer, tmp_path, easy_dataset, StepSchedule(4, 5, 2))) == 3

    def test_early_stopping_restores_the_best_weights(self, easy_dataset, tmp_path):
        stop = keras.callbacks.EarlyStopping(
            "val_loss", mode="max", patience=1, restore_best_weights=True
        )
        recording, trainer = RecordingCallback(), make_trainer()
        run_loop(trainer, tmp_path, easy_dataset, StepSchedule(100, 5, 20), [recording, stop])
        assert len(recording.epochs) > 1
        worst = max(
            range(len(recording.epochs)), key=lambda index: recording.epochs[index]["val_loss"]
        )
        assert have_same_bits(trainer.network.get_weights(), recording.weights[worst])

    @pytest.mark.usefixtures("interruptible")
    def test_an_interrupt_that_a_callback_suppresses_still_ends_the_training(
        self, easy_dataset, tmp_path
    ):
        class InterruptSuppressor(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                with contextlib.suppress(KeyboardInterrupt):
                    signal.raise_signal(signal.SIGINT)

        with interrupts.record_interrupts(), pytest.raises(KeyboardInterrupt):
            run_loop(
                make_trainer(),
                tmp_path,
                easy_dataset,
                StepSchedule(10, 5, 2),
                [InterruptSuppressor()],
            )

    def test_a_callback_can_set_the_learning_rate(self, easy_dataset, tmp_path):
        schedule = keras.callbacks.LearningRateScheduler(lambda epoch, rate: 0.0)
        trainer = make_trainer()
        before = trainer.network.get_weights()
        run_loop(trainer, tmp_path, easy_dataset, StepSchedule(5, 5, 5), [schedule])
        assert have_same_bits(trainer.network.get_weights(), before)

    def test_other_callbacks_of_keras_work(self, easy_dataset, tmp_path):
        callbacks = [
            keras.callbacks.CSVLogger(str(tmp_path / "log.csv")),
            keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"),
            keras.callbacks.TerminateOnNaN(),
            keras.callbacks.History(),
        ]
        entries = run_loop(
            make_trainer(), tmp_path, easy_dataset, StepSchedule(10, 5, 5), callbacks
        )
        assert {path.name for path in tmp_path.glob("*.keras")} == {"1.keras", "2.keras"}
        assert callbacks[-1].history["val_loss"] == [entry.validation_loss for entry in entries[1:]]
        logged_losses = [float(row["val_loss"]) for row in read_csv_rows(tmp_path / "log.csv")]
        assert logged_losses == pytest.approx(callbacks[-1].history["val_loss"])
