"""Errors of the training loop: numbers that are not finite, and datasets with missing rows."""

import re
import threading
import time

import keras
import numpy as np
import pytest

from fer_pipeline.errors import DatasetError, RunError
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.training.loop import StepSchedule
from fer_pipeline.pipelines.train import add_resume_hint_to_interrupt, train
from tests.helpers.stored_datasets import make_easy_rows, write_dataset
from tests.helpers.training import (
    TRAIN_ROWS,
    change_row_count,
    get_message,
    make_config,
    make_loader,
    make_trainer,
    run_loop,
)

pytestmark = pytest.mark.usefixtures("undrawn_figures")


REMEDY = (
    "; reduce training.optimizer.learning_rate (1e+30 in the last step) or set"
    " training.optimizer.global_clipnorm"
)


class TestNonFiniteNumbers:
    @pytest.mark.parametrize(
        ("steps", "interval"), [(6, 3), (120, 120)], ids=["a validation", "between validations"]
    )
    def test_a_loss_that_is_nan_is_an_error_of_the_next_step(
        self, easy_dataset, tmp_path, steps, interval
    ):
        schedule = StepSchedule(steps, 5, interval)
        with pytest.raises(RunError) as error:
            run_loop(make_trainer(1e30), tmp_path, easy_dataset, schedule, shuffle=True)
        message = get_message(error)
        assert message.startswith("the loss is nan after ")
        assert message.endswith(REMEDY)
        # The first step makes the weights NaN; the message names the next step.
        step = int(message.split()[5])
        assert step in (2, 3)
        assert f"(batch {step} of epoch 1)" in message
        assert "; the last finite loss was " in message
        assert " of 8 weight arrays are not finite;" in message

    def test_a_validation_loss_that_is_nan_is_an_error(self, easy_dataset, tmp_path):
        # The loss of a batch is computed before its step: only validation sees the last step.
        with pytest.raises(RunError) as error:
            run_loop(
                make_trainer(1e30), tmp_path, easy_dataset, StepSchedule(1, 5, 1), shuffle=True
            )
        message = get_message(error)
        assert message.startswith("the loss is nan after 1 steps (batch 1 of epoch 1);")
        assert message.endswith(REMEDY)

    def test_a_weight_that_is_nan_is_an_error_although_the_loss_is_finite(
        self, easy_dataset, tmp_path
    ):
        def set_weight_to_nan(batch: int, logs: dict[str, float]) -> None:
            weight = trainer.network.weights[0]
            weight.assign(np.full(weight.shape, np.nan))

        trainer = make_trainer(0.5)
        last = keras.callbacks.LambdaCallback(on_train_batch_end=set_weight_to_nan)
        with pytest.raises(RunError) as error:
            run_loop(trainer, tmp_path, easy_dataset, StepSchedule(1, 5, 1), [last], shuffle=True)
        assert re.fullmatch(
            r"1 of 8 weight arrays are not finite after 1 steps, although the loss is finite"
            r" \(\d.*\)" + re.escape(REMEDY.replace("1e+30", "0.5")),
            get_message(error),
        )


def list_threads() -> set[threading.Thread]:
    """Return the threads of Python itself."""
    dummy = threading._DummyThread  # threads of TensorFlow that called Python
    return {thread for thread in threading.enumerate() if not isinstance(thread, dummy)}


class TestDataset:
    @pytest.mark.parametrize(
        ("change", "batch_size", "shuffle"),
        [(1, 23, True), (30, 1, False), (-1, 1, False), (-30, 23, True), (-30, 23, False)],
    )
    def test_an_epoch_with_another_row_count_than_the_manifest_is_an_error(
        self, tmp_path, change, batch_size, shuffle
    ):
        rows = make_easy_rows(TRAIN_ROWS, 5)
        dataset = write_dataset(
            tmp_path / "data", {"train": rows}, change_file=change_row_count(change)
        )
        loader = make_loader(dataset, batch_size=batch_size, shuffle=shuffle)
        steps = loader.steps_per_epoch
        message = (
            f"{dataset}: an epoch of the train split delivered 115 rows,"
            f" the manifest says {115 + change}; run preprocess again"
        )
        trainer = make_trainer()
        with pytest.raises(DatasetError) as error:
            trainer.evaluate(loader)
        assert get_message(error) == message
        with pytest.raises(DatasetError) as error:
            run_loop(
                trainer,
                tmp_path,
                dataset,
                StepSchedule(3 * steps, steps, steps),
                validation=None,
                batch_size=batch_size,
                shuffle=shuffle,
            )
        assert get_message(error) == message

    def test_a_last_epoch_with_missing_rows_is_an_error(self, tmp_path):
        rows = make_easy_rows(TRAIN_ROWS, 5)
        dataset = write_dataset(
            tmp_path / "data", {"train": rows}, change_file=change_row_count(-30)
        )
        with pytest.raises(DatasetError):
            train(str(dataset), str(tmp_path / "run"), make_config("training.epochs=1", steps=None))
        assert not (tmp_path / "run" / "model.json").exists()

    @pytest.mark.parametrize("ending", ["all steps", "stopped", "failed"])
    def test_no_thread_remains_after_training(self, easy_dataset, tmp_path, ending):
        threads_before = list_threads()

        def stop_training(epoch: int, logs: dict[str, float]) -> None:
            stop.model.stop_training = True

        stop: keras.callbacks.Callback = keras.callbacks.LambdaCallback(on_epoch_end=stop_training)
        rate = 1e30 if ending == "failed" else 0.02
        callbacks = [stop] if ending == "stopped" else []
        try:
            run_loop(
                make_trainer(rate),
                tmp_path,
                easy_dataset,
                StepSchedule(60, 115, 30),
                callbacks,
                batch_size=1,
            )
        except RunError:
            assert ending == "failed"
        else:
            assert ending != "failed"
        deadline = time.monotonic() + 5
        while not list_threads() <= threads_before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert list_threads() <= threads_before


@pytest.mark.parametrize(
    ("has_checkpoint", "hint"),
    [(True, "--resume continues the run"), (False, "there is no checkpoint yet")],
)
def test_an_interrupt_says_what_resuming_will_do(tmp_path, has_checkpoint, hint):
    if has_checkpoint:
        (tmp_path / RunFile.CHECKPOINT).touch()
    with pytest.raises(KeyboardInterrupt, match=hint), add_resume_hint_to_interrupt(tmp_path):
        raise KeyboardInterrupt
