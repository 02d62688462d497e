import csv

import cv2
import keras
import numpy as np
import pytest

from fer_pipeline.errors import StorageError
from fer_pipeline.learning import training_plots
from fer_pipeline.learning.callbacks import BestModel, Report
from fer_pipeline.learning.history import History, Round

HEADER = [
    *("step", "epoch", "minibatch_loss", "minibatch_accuracy"),
    *("validation_loss", "validation_accuracy"),
]
DRAWN = Round(0, 0, None, None, 1.25, 0.125)
FIRST = Round(7, 1, 0.1 + 0.2, 1 / 3, 1.5, 0.5)
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
            ["0", "0", "", "", "1.25", "0.125"],
            # Every digit, so that it can be read back.
            ["7", "1", repr(0.1 + 0.2), repr(1 / 3), "1.5", "0.5"],
            ["14", "2", "0.25", "0.75", "", ""],
        ]
        assert b"\r" not in path.read_bytes()

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


class TestBestModel:
    def run(self, folder, accuracies):
        """A round for each accuracy, seven steps each; the model is the number of the round."""
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
        history = History(folder / "history.csv")
        history.add(DRAWN)
        validated = accuracies[0] is not None
        best = BestModel(model, folder / "best.keras", history, validated=validated)
        best.set_model(model)
        best.on_train_begin()
        for index, accuracy in enumerate(accuracies):
            model.set_weights([np.array([[index + 1]], np.float32)])
            history.add(Round(7 * (index + 1), 1, 1.0, 0.5, None, accuracy))
            best.on_epoch_end(
                index, {"loss": 1.0, **({"val_accuracy": accuracy} if validated else {})}
            )
        best.on_train_end()
        assert {path.name for path in folder.iterdir()} == {"best.keras", "history.csv"}
        kept = keras.models.load_model(best.path).get_weights()[0].item()
        return best, kept

    @pytest.mark.parametrize(
        ("accuracies", "number"),
        [
            ([0.2, 0.5, 0.4, 0.3], 2),
            ([0.5, 0.4], 1),
            ([0.1, 0.2, 0.3], 3),
            ([0.0, 0.0], 1),
            ([0.3, 0.5, 0.5], 2),  # of equals the first
        ],
    )
    def test_keeps_the_model_that_validates_best(self, tmp_path, accuracies, number):
        best, kept = self.run(tmp_path, accuracies)
        assert (best.step, best.accuracy, kept) == (7 * number, max(accuracies), number)

    def test_keeps_the_last_one_without_validation(self, tmp_path):
        best, kept = self.run(tmp_path, [None, None, None])
        assert (best.step, best.accuracy, kept) == (21, None, 3)


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
