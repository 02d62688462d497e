import csv
from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import pytest

from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.io.output_kinds import RunFile
from fer_pipeline.learning.training import history as histories
from fer_pipeline.learning.training.callbacks import BestSnapshot, BestWeights
from fer_pipeline.learning.training.history import History, HistoryEntry
from fer_pipeline.learning.training.loggers.console import ConsoleLogger
from fer_pipeline.pipelines.training_plots import plot_training
from tests.helpers.images import read_image

HEADER = [
    *("step", "epoch", "minibatch_loss", "minibatch_accuracy"),
    *("validation_loss", "validation_accuracy", "validation_mean_class_accuracy"),
    *("learning_rate", "restart", "rows"),
]
INITIAL = HistoryEntry(0, 0, None, None, 1.25, 0.125)
FIRST = HistoryEntry(7, 1, 0.1 + 0.2, 1 / 3, 1.5, 0.5, 0.25, 0.05, 1, 28_709)
UNVALIDATED = HistoryEntry(14, 2, 0.25, 0.75, None, None)


def read_table(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


class TestHistory:
    def test_each_entry_is_written_at_once(self, tmp_path):
        path = tmp_path / "run" / "history.csv"
        history = History.create(path)
        assert read_table(path) == [HEADER]
        for count, entry in enumerate([INITIAL, FIRST, UNVALIDATED], 1):
            history.add(entry)
            assert len(read_table(path)) == 1 + count
        assert history.entries == [INITIAL, FIRST, UNVALIDATED]
        assert read_table(path) == [
            HEADER,
            ["0", "0", "", "", "1.25", "0.125", "", "", "0", ""],
            # Every digit, so that it can be read back.
            ["7", "1", repr(0.1 + 0.2), repr(1 / 3), "1.5", "0.5", "0.25", "0.05", "1", "28709"],
            ["14", "2", "0.25", "0.75", "", "", "", "", "0", ""],
        ]
        assert b"\r" not in path.read_bytes()
        assert histories.read_history(path) == history.entries

    def test_an_entry_is_added_after_earlier_entries(self, tmp_path):
        path = tmp_path / "history.csv"
        History.create(path, [INITIAL, FIRST]).add(UNVALIDATED)
        assert histories.read_history(path) == [INITIAL, FIRST, UNVALIDATED]

    def test_a_file_without_the_column_of_rows_is_read(self, tmp_path):
        path = tmp_path / "history.csv"
        History.create(path, [INITIAL, UNVALIDATED])
        lines = path.read_text().splitlines()
        path.write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
        assert histories.read_history(path) == [INITIAL, UNVALIDATED]

    def test_a_file_with_columns_of_an_older_version_is_refused(self, tmp_path):
        path = tmp_path / "history.csv"
        History.create(path, [INITIAL])
        path.write_text(path.read_text().replace("restart", "trial"))
        with pytest.raises(RunError, match=rf"scripts/migrate-run {tmp_path}$"):
            histories.read_history(path)

    def test_a_history_in_memory_writes_no_file(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        history = History([INITIAL])
        history.add(FIRST)
        assert history.entries == [INITIAL, FIRST]
        assert list(tmp_path.iterdir()) == []

    def test_history_is_formatted_as_a_table(self):
        assert histories.format_history([INITIAL, UNVALIDATED]).splitlines() == [
            "step  epoch    loss  accuracy  val loss  val accuracy  mean class  rate",
            "   0      0       -         -    1.2500        12.50%           -     -",
            "  14      2  0.2500    75.00%         -             -           -     -",
        ]
        assert histories.format_history([FIRST]).splitlines() == [
            "restart  step  epoch    loss  accuracy  val loss  val accuracy  mean class  rate",
            "      1     7      1  0.3000    33.33%    1.5000        50.00%      25.00%  0.05",
        ]

    def test_a_new_history_overwrites_the_file(self, tmp_path):
        path = tmp_path / "history.csv"
        History.create(path).add(FIRST)
        History.create(path)
        assert read_table(path) == [HEADER]

    def test_a_file_that_cannot_be_written_is_an_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot be written"):
            History.create(tmp_path / "file" / "history.csv")
        history = History.create(tmp_path / "history.csv")
        (tmp_path / "history.csv").unlink()
        (tmp_path / "history.csv").mkdir()
        with pytest.raises(StorageError, match=r"history\.csv: cannot be written: Is a directory"):
            history.add(FIRST)


def select_best_weights(
    folder: Path, scores: Sequence[float | None], metric: str = "val_accuracy"
) -> BestSnapshot:
    """Return the snapshot after one validation for each score, every seven steps.

    The only weight of the model is the number of the validation, from 1.

    Args:
        folder: Folder of the history.
        scores: Values of the metric; None without a validation split.
        metric: Metric that decides, or "last".
    """
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    history = History.create(folder / "history.csv")
    history.add(INITIAL)
    has_validation = scores[0] is not None
    confusion = np.eye(2, dtype=np.int64)
    best = BestWeights(
        metric,
        history,
        lambda: confusion if has_validation else None,
        has_validation=has_validation,
    )
    best.set_model(model)
    best.on_train_begin()
    for index, score in enumerate(scores):
        model.set_weights([np.array([[index + 1]], np.float32)])
        history.add(HistoryEntry(7 * (index + 1), 1, 1.0, 0.5, None, score))
        best.on_epoch_end(index, {"accuracy": 0.5, **({metric: score} if has_validation else {})})
    best.on_train_end()
    assert best.snapshot is not None
    return best.snapshot


class TestBestWeights:
    @pytest.mark.parametrize(
        ("values", "number"),
        [
            ([0.2, 0.5, 0.4, 0.3], 2),
            ([0.5, 0.4], 1),
            ([0.1, 0.2, 0.3], 3),
            ([0.0, 0.0], 1),
            ([0.3, 0.5, 0.5], 2),  # the first of equal ones
        ],
    )
    def test_the_weights_of_the_best_validation_are_kept(self, tmp_path, values, number):
        snapshot = select_best_weights(tmp_path, values)
        assert (snapshot.entry.step, snapshot.metric) == (7 * number, max(values))
        assert snapshot.weights[0].item() == number
        assert snapshot.confusion == [[1, 0], [0, 1]]

    def test_the_weights_of_the_least_loss_are_kept(self, tmp_path):
        snapshot = select_best_weights(tmp_path, [0.2, 0.1, 0.4], "val_loss")
        assert (snapshot.entry.step, snapshot.metric, snapshot.weights[0].item()) == (14, 0.1, 2)

    def test_the_last_weights_are_kept_if_requested(self, tmp_path):
        snapshot = select_best_weights(tmp_path, [0.2, 0.5, 0.4], "last")
        assert (snapshot.entry.step, snapshot.metric, snapshot.weights[0].item()) == (21, None, 3)
        assert snapshot.confusion == [[1, 0], [0, 1]]

    def test_the_last_weights_are_kept_without_validation(self, tmp_path):
        snapshot = select_best_weights(tmp_path, [None, None, None])
        assert (snapshot.entry.step, snapshot.metric, snapshot.confusion) == (21, None, None)
        assert snapshot.weights[0].item() == 3


class TestConsoleLogger:
    @pytest.mark.parametrize(
        ("entry", "line"),
        [
            (
                HistoryEntry(16_001, 12, 0.12345, 0.98765, 1.5, 0.488),
                "step 16,001, epoch 12; minibatch loss 0.1235, accuracy 98.77%;"
                " validation loss 1.5000, accuracy 48.80%",
            ),
            (UNVALIDATED, "step 14, epoch 2; minibatch loss 0.2500, accuracy 75.00%"),
        ],
    )
    def test_the_last_entry_is_logged(self, tmp_path, caplog, entry, line):
        history = History.create(tmp_path / "history.csv")
        history.add(INITIAL)
        history.add(entry)
        with caplog.at_level("INFO"):
            ConsoleLogger(history).on_epoch_end(0, {})
        assert caplog.messages == [line]


class TestPlots:
    @pytest.mark.parametrize("file", [RunFile.ACCURACY_PLOT, RunFile.LOSS_PLOT])
    @pytest.mark.parametrize(
        "entries",
        [[INITIAL, FIRST], [INITIAL], [UNVALIDATED], []],
        ids=["all", "one", "train", "none"],
    )
    def test_the_plots_are_not_blank(self, tmp_path, file, entries):
        plot_training(entries, "a run", tmp_path)
        picture = read_image(tmp_path / file)
        assert min(picture.shape[:2]) > 300
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
