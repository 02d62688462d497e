import csv

import cv2
import keras
import numpy as np
import pytest

from fer_pipeline.errors import RunError, StorageError
from fer_pipeline.learning.training import history as histories
from fer_pipeline.learning.training import plots as training_plots
from fer_pipeline.learning.training.callbacks import BestWeights, Report
from fer_pipeline.learning.training.history import History, Round

HEADER = [
    *("step", "epoch", "minibatch_loss", "minibatch_accuracy"),
    *("validation_loss", "validation_accuracy", "validation_mean_class_accuracy"),
    *("learning_rate", "restart", "rows"),
]
DRAWN = Round(0, 0, None, None, 1.25, 0.125)
FIRST = Round(7, 1, 0.1 + 0.2, 1 / 3, 1.5, 0.5, 0.25, 0.05, 1, 28_709)
UNVALIDATED = Round(14, 2, 0.25, 0.75, None, None)


def table(path):
    with path.open(newline="") as file:
        return list(csv.reader(file))


class TestHistory:
    def test_is_on_disk_after_each_round(self, tmp_path):
        path = tmp_path / "run" / "history.csv"
        history = History(path)
        assert table(path) == [HEADER]
        for count, made in enumerate([DRAWN, FIRST, UNVALIDATED], 1):
            history.add(made)
            assert len(table(path)) == 1 + count
        assert history.rounds == [DRAWN, FIRST, UNVALIDATED]
        assert table(path) == [
            HEADER,
            ["0", "0", "", "", "1.25", "0.125", "", "", "0", ""],
            # Every digit, so that it can be read back.
            ["7", "1", repr(0.1 + 0.2), repr(1 / 3), "1.5", "0.5", "0.25", "0.05", "1", "28709"],
            ["14", "2", "0.25", "0.75", "", "", "", "", "0", ""],
        ]
        assert b"\r" not in path.read_bytes()
        assert histories.read(path) == history.rounds

    def test_goes_on(self, tmp_path):
        path = tmp_path / "history.csv"
        History(path, [DRAWN, FIRST]).add(UNVALIDATED)
        assert histories.read(path) == [DRAWN, FIRST, UNVALIDATED]

    def test_of_before_there_were_rows_can_be_read(self, tmp_path):
        path = tmp_path / "history.csv"
        History(path, [DRAWN, UNVALIDATED])
        lines = path.read_text().splitlines()
        path.write_text("".join(line.rpartition(",")[0] + "\n" for line in lines))
        assert histories.read(path) == [DRAWN, UNVALIDATED]

    def test_with_the_columns_of_an_older_version_it_is_refused(self, tmp_path):
        path = tmp_path / "history.csv"
        History(path, [DRAWN])
        path.write_text(path.read_text().replace("restart", "trial"))
        with pytest.raises(RunError, match=rf"scripts/migrate-run {tmp_path}$"):
            histories.read(path)

    def test_in_memory_alone(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        history = History(None, [DRAWN])
        history.add(FIRST)
        assert history.rounds == [DRAWN, FIRST]
        assert list(tmp_path.iterdir()) == []

    def test_as_a_table(self):
        assert histories.table([DRAWN, UNVALIDATED]).splitlines() == [
            "step  epoch    loss  accuracy  val loss  val accuracy  mean class  rate",
            "   0      0       -         -    1.2500        12.50%           -     -",
            "  14      2  0.2500    75.00%         -             -           -     -",
        ]
        assert histories.table([FIRST]).splitlines() == [
            "restart  step  epoch    loss  accuracy  val loss  val accuracy  mean class  rate",
            "      1     7      1  0.3000    33.33%    1.5000        50.00%      25.00%  0.05",
        ]

    def test_begins_anew(self, tmp_path):
        path = tmp_path / "history.csv"
        History(path).add(FIRST)
        History(path)
        assert table(path) == [HEADER]

    def test_that_cannot_be_written(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot be written"):
            History(tmp_path / "file" / "history.csv")
        history = History(tmp_path / "history.csv")
        (tmp_path / "history.csv").unlink()
        (tmp_path / "history.csv").mkdir()
        with pytest.raises(StorageError, match=r"history\.csv: cannot be written: Is a directory"):
            history.add(FIRST)


class TestBestWeights:
    def run(self, folder, values, metric="val_accuracy"):
        """A round for each value, seven steps each; the weight is the number of the round."""
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        history = History(folder / "history.csv")
        history.add(DRAWN)
        validated = values[0] is not None
        confusion = np.eye(2, dtype=np.int64)
        best = BestWeights(
            metric, history, lambda: confusion if validated else None, validated=validated
        )
        best.set_model(model)
        best.on_train_begin()
        for index, value in enumerate(values):
            model.set_weights([np.array([[index + 1]], np.float32)])
            history.add(Round(7 * (index + 1), 1, 1.0, 0.5, None, value))
            best.on_epoch_end(index, {"accuracy": 0.5, **({metric: value} if validated else {})})
        best.on_train_end()
        return best.kept

    @pytest.mark.parametrize(
        ("values", "number"),
        [
            ([0.2, 0.5, 0.4, 0.3], 2),
            ([0.5, 0.4], 1),
            ([0.1, 0.2, 0.3], 3),
            ([0.0, 0.0], 1),
            ([0.3, 0.5, 0.5], 2),  # of equals the first
        ],
    )
    def test_keeps_those_that_validate_best(self, tmp_path, values, number):
        kept = self.run(tmp_path, values)
        assert (kept.made.step, kept.value) == (7 * number, max(values))
        assert kept.weights[0].item() == number
        assert kept.confusion == [[1, 0], [0, 1]]

    def test_of_a_loss_the_least(self, tmp_path):
        kept = self.run(tmp_path, [0.2, 0.1, 0.4], "val_loss")
        assert (kept.made.step, kept.value, kept.weights[0].item()) == (14, 0.1, 2)

    def test_keeps_the_last_ones_where_that_is_asked_for(self, tmp_path):
        kept = self.run(tmp_path, [0.2, 0.5, 0.4], "last")
        assert (kept.made.step, kept.value, kept.weights[0].item()) == (21, None, 3)
        assert kept.confusion == [[1, 0], [0, 1]]

    def test_keeps_the_last_ones_without_validation(self, tmp_path):
        kept = self.run(tmp_path, [None, None, None])
        assert (kept.made.step, kept.value, kept.confusion) == (21, None, None)
        assert kept.weights[0].item() == 3


class TestReport:
    @pytest.mark.parametrize(
        ("made", "line"),
        [
            (
                Round(16_001, 12, 0.12345, 0.98765, 1.5, 0.488),
                "step 16,001, epoch 12; minibatch loss 0.1235, accuracy 98.77%;"
                " validation loss 1.5000, accuracy 48.80%",
            ),
            (UNVALIDATED, "step 14, epoch 2; minibatch loss 0.2500, accuracy 75.00%"),
        ],
    )
    def test_tells_the_round(self, tmp_path, caplog, made, line):
        history = History(tmp_path / "history.csv")
        history.add(DRAWN)
        history.add(made)
        with caplog.at_level("INFO"):
            Report(history).on_epoch_end(0, {})
        assert caplog.messages == [line]


class TestPlots:
    @pytest.mark.parametrize("draw", [training_plots.accuracy, training_plots.loss])
    @pytest.mark.parametrize(
        "rounds", [[DRAWN, FIRST], [DRAWN], [UNVALIDATED], []], ids=["all", "one", "train", "none"]
    )
    def test_can_be_seen(self, tmp_path, draw, rounds):
        draw(rounds, "a run", tmp_path / "a.png")
        picture = cv2.imread(str(tmp_path / "a.png"))
        assert min(picture.shape[:2]) > 300
        assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20
