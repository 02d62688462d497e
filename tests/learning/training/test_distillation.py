"""Training with distillation, on real runs."""

import json
from pathlib import Path

import keras
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from fer_pipeline.config import Config, load_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, RunError
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.learning.training import distillation
from fer_pipeline.pipelines.train import train
from tests.helpers.stored_datasets import Rowset, make_easy_rows, write_dataset

pytestmark = pytest.mark.usefixtures("undrawn_figures")


SIZE = 16


def make_config(*overrides: str, seed: int = 0) -> Config:
    return load_config(
        None,
        [
            *(f"seed={seed}", "loader.batch_size=23", "model.options.hidden=8"),
            *("training.epochs=8", "training.optimizer.learning_rate=0.02", *overrides),
        ],
    )


def make_overrides(*teachers: Path | str, weight: float = 0.7) -> list[str]:
    names = json.dumps([str(teacher) for teacher in teachers])
    return [f"training.distillation.teachers={names}", f"training.distillation.weight={weight}"]


@pytest.fixture(scope="module")
def mislabelled_dataset(tmp_path_factory):
    """The easy dataset, but each label is replaced by the next one, in a cycle."""

    def shift_labels(rows: int, seed: int) -> Rowset:
        faces = make_easy_rows(rows, seed)
        return Rowset(faces.pixels, (faces.labels + 1) % 3)

    splits = {name: shift_labels(n, 10 + n) for name, n in (("train", 115), ("validation", 40))}
    return write_dataset(tmp_path_factory.mktemp("mistaken"), splits)


@pytest.fixture(scope="module")
def teachers(easy_dataset, mislabelled_dataset, tmp_path_factory):
    """Two runs: the first one has learnt the labels, the second one has learnt the next ones."""
    folder = tmp_path_factory.mktemp("teachers")
    runs = []
    for name, dataset in (("right", easy_dataset), ("wrong", mislabelled_dataset)):
        model_info = train(str(dataset), str(folder / name), make_config())
        assert model_info.best_accuracy is not None
        assert model_info.best_accuracy > 0.9
        runs.append(folder / name)
    return runs


def load_validation_batch(folder: Path) -> tuple[tf.Tensor, tf.Tensor]:
    loader = BatchLoader(StoredDataset.open(folder), Split.VALIDATION, LoaderOptions(40))
    ((images, labels),) = loader.iterate_epoch(0)
    return images, labels


def predict_validation(
    run: Path, dataset: Path
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """Return the predicted and the stored labels of the validation split."""
    images, labels = load_validation_batch(dataset)
    model = TrainedModel.open(run).load_network()
    normalized = keras.Model(model.get_layer("normalization").output, model.output)
    return normalized.predict_on_batch(images).argmax(axis=1), labels.numpy()


class TestTeachers:
    def test_they_take_turns_by_step(self, easy_dataset, teachers):
        settings = load_config(None, make_overrides(*teachers)).training.distillation
        loaded = distillation.load_teachers(settings, StoredDataset.open(easy_dataset))
        images, _ = load_validation_batch(easy_dataset)
        models = [TrainedModel.open(folder).load_network() for folder in teachers]
        # The models take raw pixels, 0..255; centred pixels are (pixel - 128) / 128.
        answers = [model.predict_on_batch(images * 128 + 128) for model in models]
        assert not np.allclose(answers[0], answers[1], atol=0.1)
        ask_teacher = tf.function(loaded)
        for step in range(4):
            answer = ask_teacher(tf.constant(images), tf.constant(step, tf.int64)).numpy()
            np.testing.assert_allclose(answer, answers[step % 2], atol=1e-5)

    def test_without_teachers_there_is_no_function(self, easy_dataset):
        assert (
            distillation.load_teachers(
                load_config(None).training.distillation, StoredDataset.open(easy_dataset)
            )
            is None
        )

    def test_a_weight_of_zero_does_not_change_the_training(self, easy_dataset, teachers, tmp_path):
        alone = train(str(easy_dataset), str(tmp_path / "alone"), make_config("training.epochs=2"))
        taught = train(
            str(easy_dataset),
            str(tmp_path / "taught"),
            make_config(
                "training.epochs=2",
                "training.label_smoothing=0",
                *make_overrides(*teachers, weight=0),
            ),
        )
        weights = [
            TrainedModel.open(tmp_path / name).load_network().get_weights()
            for name in ("alone", "taught")
        ]
        for array, expected in zip(*weights, strict=True):
            np.testing.assert_allclose(array, expected, atol=1e-6)
        assert (alone.teachers, len(taught.teachers)) == ([], 2)


class TestStudent:
    def test_the_weight_decides_between_labels_and_teacher(self, easy_dataset, teachers, tmp_path):
        """The teacher always contradicts the labels."""
        shares = {}
        for weight in (0.1, 0.9):
            run = tmp_path / str(weight)
            settings = make_config(
                "training.select_best_by=last",
                *make_overrides(teachers[1], weight=weight),
                seed=1,
            )
            train(str(easy_dataset), str(run), settings)
            predicted, labels = predict_validation(run, easy_dataset)
            shares[weight] = ((predicted == labels).mean(), (predicted == (labels + 1) % 3).mean())
        assert shares[0.1][0] > 0.8
        assert shares[0.9][1] > 0.8

    def test_the_run_records_its_teachers(self, easy_dataset, teachers, tmp_path):
        run = tmp_path / "run"
        model_info = train(
            str(easy_dataset),
            str(run),
            make_config("training.epochs=1", *make_overrides(*teachers)),
        )
        assert model_info.teachers == [TrainedModel.open(folder).info.sha256 for folder in teachers]
        written = load_config(run / "config.yaml").training.distillation
        assert written.teachers == [str(folder) for folder in teachers]


def get_training_error(
    dataset: Path, run: Path, *overrides: str, kind: type[Exception] = ConfigError
) -> str:
    """Return the message of the error of a training that writes nothing."""
    with pytest.raises(kind) as error:
        train(str(dataset), str(run), make_config(*overrides))
    assert not run.exists()
    return str(error.value)


class TestDistillationErrors:
    def test_a_missing_teacher_is_refused(self, easy_dataset, tmp_path):
        missing = tmp_path / "missing"
        message = get_training_error(
            easy_dataset, tmp_path / "run", *make_overrides(missing), kind=RunError
        )
        assert message.startswith(f"{missing}: no such folder")

    def test_a_teacher_of_other_classes_and_sizes_is_refused(self, easy_dataset, tmp_path):
        # The bundled model takes 48x48 pixels and has seven classes.
        message = get_training_error(easy_dataset, tmp_path / "run", *make_overrides("compact"))
        assert message.startswith("training.distillation.teachers: compact ")
        assert " different classes, image size than the dataset" in message

    @pytest.mark.parametrize("weight", [-0.1, 1, 2])
    def test_a_weight_outside_0_to_1_is_refused(self, weight):
        with pytest.raises(ConfigError, match=r"training\.distillation\.weight"):
            load_config(None, [f"training.distillation.weight={weight}"])
