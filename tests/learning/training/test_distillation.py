"""Networks that learn from trained models, on real runs."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from fer_pipeline.config import load_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.data.outcomes import Split
from fer_pipeline.errors import ConfigError, RunError
from fer_pipeline.learning.inference.trained_model import TrainedModel
from fer_pipeline.learning.input.batch_loader import BatchLoader, LoaderOptions
from fer_pipeline.learning.training import distillation
from fer_pipeline.pipelines.train import train

SIZE = 16


def make_config(*overrides, seed=0):
    return load_config(
        None,
        [
            *(f"seed={seed}", "loader.batch_size=23", "model.options.hidden=8"),
            *("training.epochs=8", "training.optimizer.learning_rate=0.02", *overrides),
        ],
    )


def distillation_overrides(*teachers, weight=0.7):
    names = json.dumps([str(teacher) for teacher in teachers])
    return [f"training.distillation.teachers={names}", f"training.distillation.weight={weight}"]


@pytest.fixture(scope="module")
def mistaken(bright_and_dark, write_dataset, tmp_path_factory):
    """The easy dataset with each label taken for the next one, in a cycle."""

    def shift_labels(rows, seed):
        given = bright_and_dark(rows, seed)
        return type(given)(given.pixels, (given.labels + 1) % 3)

    splits = {name: shift_labels(n, 10 + n) for name, n in (("train", 115), ("validation", 40))}
    return write_dataset(tmp_path_factory.mktemp("mistaken"), splits)


@pytest.fixture(scope="module")
def teachers(easy_dataset, mistaken, tmp_path_factory):
    """One that has learnt the labels, and one that has learnt the next ones."""
    folder = tmp_path_factory.mktemp("teachers")
    found = []
    for name, data in (("right", easy_dataset), ("wrong", mistaken)):
        info = train(str(data), str(folder / name), make_config())
        assert info.best_accuracy > 0.9
        found.append(folder / name)
    return found


def load_validation_batch(folder):
    loader = BatchLoader(StoredDataset.open(folder), Split.VALIDATION, LoaderOptions(40))
    ((images, labels),) = loader.iterate_epoch(0)
    return images, labels


def predict_validation(run, dataset):
    images, labels = load_validation_batch(dataset)
    model = TrainedModel.open(run).load_network()
    normalized = keras.Model(model.get_layer("normalization").output, model.output)
    return normalized.predict_on_batch(images).argmax(axis=1), labels.numpy()


class TestTeachers:
    def test_answer_in_turn(self, easy_dataset, teachers):
        settings = load_config(None, distillation_overrides(*teachers)).training.distillation
        loaded = distillation.load_teachers(settings, StoredDataset.open(easy_dataset))
        images, _ = load_validation_batch(easy_dataset)
        models = [TrainedModel.open(folder).load_network() for folder in teachers]
        # These take raw pixels, 0..255: centred ones are (pixel - 128) / 128.
        answers = [model.predict_on_batch(images * 128 + 128) for model in models]
        assert not np.allclose(*answers, atol=0.1)
        asked = tf.function(loaded)
        for step in range(4):
            found = asked(tf.constant(images), tf.constant(step, tf.int64)).numpy()
            np.testing.assert_allclose(found, answers[step % 2], atol=1e-5)

    def test_there_are_none(self, easy_dataset):
        assert (
            distillation.load_teachers(
                load_config(None).training.distillation, StoredDataset.open(easy_dataset)
            )
            is None
        )

    def test_that_have_no_say_change_no_bit(self, easy_dataset, teachers, tmp_path):
        alone = train(str(easy_dataset), str(tmp_path / "alone"), make_config("training.epochs=2"))
        heard = train(
            str(easy_dataset),
            str(tmp_path / "heard"),
            make_config(
                "training.epochs=2",
                "training.label_smoothing=0",
                *distillation_overrides(*teachers, weight=0),
            ),
        )
        weights = [
            TrainedModel.open(tmp_path / name).load_network().get_weights()
            for name in ("alone", "heard")
        ]
        for one, other in zip(*weights, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-6)
        assert (alone.teachers, len(heard.teachers)) == ([], 2)


class TestPupil:
    def test_learns_what_its_teacher_says(self, easy_dataset, teachers, tmp_path):
        """The labels say one thing, the teacher another: the weight decides."""
        shares = {}
        for weight in (0.1, 0.9):
            run = tmp_path / str(weight)
            settings = make_config(
                "training.select_best_by=last",
                *distillation_overrides(teachers[1], weight=weight),
                seed=1,
            )
            train(str(easy_dataset), str(run), settings)
            predicted, labels = predict_validation(run, easy_dataset)
            shares[weight] = ((predicted == labels).mean(), (predicted == (labels + 1) % 3).mean())
        assert shares[0.1][0] > 0.8
        assert shares[0.9][1] > 0.8

    def test_says_who_taught_it(self, easy_dataset, teachers, tmp_path):
        run = tmp_path / "run"
        info = train(
            str(easy_dataset),
            str(run),
            make_config("training.epochs=1", *distillation_overrides(*teachers)),
        )
        assert info.teachers == [TrainedModel.open(folder).info.sha256 for folder in teachers]
        written = load_config(run / "config.yaml").training.distillation
        assert written.teachers == [str(folder) for folder in teachers]


class TestRefusals:
    def get_refusal(self, dataset, tmp_path, *overrides, kind=ConfigError):
        with pytest.raises(kind) as error:
            train(str(dataset), str(tmp_path / "run"), make_config(*overrides))
        assert not (tmp_path / "run").exists()
        return str(error.value)

    def test_a_teacher_that_is_not_there(self, easy_dataset, tmp_path):
        missing = tmp_path / "missing"
        message = self.get_refusal(
            easy_dataset, tmp_path, *distillation_overrides(missing), kind=RunError
        )
        assert message.startswith(f"{missing}: no such folder")

    def test_a_teacher_of_other_images(self, easy_dataset, tmp_path):
        # The package's own takes 48x48, and knows seven classes.
        message = self.get_refusal(easy_dataset, tmp_path, *distillation_overrides("compact"))
        assert message.startswith("training.distillation.teachers: compact ")
        assert " different classes, image size than the dataset" in message

    @pytest.mark.parametrize("weight", [-0.1, 1, 2])
    def test_a_weight_that_is_no_part(self, weight):
        with pytest.raises(ConfigError, match=r"training\.distillation\.weight"):
            load_config(None, [f"training.distillation.weight={weight}"])
