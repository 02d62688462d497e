"""`TrainedModel`: a model on disk, and its predictions for arrays."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fer_pipeline.data.enhancement import Enhancement, enhance
from fer_pipeline.data.image_preparation import resize
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import RunError
from fer_pipeline.io.output_kinds import DEFAULT_MODEL
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.learning.inference.trained_model import PRETRAINED_FOLDER, TrainedModel
from fer_pipeline.learning.networks import registry
from tests.helpers import finished_run

SIZE = 16
CLASSES = ("angry", "happy", "sad")
ENHANCEMENT = Enhancement(equalize=True)
IMAGES = np.random.default_rng(1).integers(0, 256, (5, SIZE, SIZE), np.uint8)


def save_run(folder: Path, enhancement: Enhancement) -> Path:
    """Write a finished run of a small network for images enhanced like this."""
    network = registry.build_network("system_a", SIZE, len(CLASSES), {"hidden": 8})
    model = serving_model.build_serving_model(network, SIZE, Normalization.centered())
    finished_run.save(folder, model, CLASSES, network="system_a", enhancement=enhancement)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return TrainedModel.load(save_run(tmp_path_factory.mktemp("plain"), Enhancement()))


@pytest.fixture(scope="module")
def enhancing(tmp_path_factory: pytest.TempPathFactory) -> TrainedModel:
    return TrainedModel.load(save_run(tmp_path_factory.mktemp("enhancing"), ENHANCEMENT))


class TestOpen:
    def test_a_bundled_model_is_opened_by_its_name(self, tmp_path, monkeypatch) -> None:
        monkeypatch.chdir(tmp_path)
        model = TrainedModel.open(DEFAULT_MODEL)
        assert model == TrainedModel.open() == TrainedModel.open(PRETRAINED_FOLDER / DEFAULT_MODEL)
        assert (model.name, model.is_bundled) == (DEFAULT_MODEL, True)
        assert model.model_file == PRETRAINED_FOLDER / DEFAULT_MODEL / "model.keras"
        assert model.export_folder == PRETRAINED_FOLDER / DEFAULT_MODEL / "export"

    def test_an_existing_folder_has_priority_over_a_bundled_model(
        self, tmp_path, monkeypatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / DEFAULT_MODEL).mkdir()
        with pytest.raises(RunError, match="holds no trained model"):
            TrainedModel.open(DEFAULT_MODEL)

    def test_a_run_is_not_bundled(self, plain) -> None:
        assert not plain.is_bundled

    def test_opening_a_model_imports_no_tensorflow(self) -> None:
        code = (
            "import sys\n"
            "from fer_pipeline.learning.inference.trained_model import TrainedModel\n"
            "print(len(TrainedModel.open().read_content()) > 0)\n"
            "print([name for name in ('tensorflow', 'keras') if name in sys.modules])\n"
        )
        process = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        )
        assert process.stdout.splitlines() == ["True", "[]"]


class TestPredict:
    def test_probabilities_are_those_of_the_keras_model(self, plain) -> None:
        probabilities = plain.predict(IMAGES)
        assert (probabilities.dtype, probabilities.shape) == (np.float32, (5, 3))
        expected = plain.load_network().predict(IMAGES[..., np.newaxis], verbose=0)
        np.testing.assert_allclose(probabilities, expected, atol=1e-6)

    @pytest.mark.parametrize("as_images", [lambda a: a[..., np.newaxis], list, tuple])
    def test_arrays_with_a_channel_and_lists_give_the_same_probabilities(
        self, plain, as_images
    ) -> None:
        np.testing.assert_array_equal(plain.predict(as_images(IMAGES)), plain.predict(IMAGES))

    def test_images_are_enhanced_and_then_resized(self, enhancing) -> None:
        random = np.random.default_rng(2)
        shapes = [(SIZE, SIZE), (40, 30), (9, 12, 1)]
        images = [random.integers(0, 200, shape, np.uint8) for shape in shapes]
        gray_images = [image.reshape(image.shape[:2]) for image in images]
        prepared = np.stack([resize(enhance(image, ENHANCEMENT), SIZE) for image in gray_images])
        expected = enhancing.load_network().predict(prepared[..., np.newaxis], verbose=0)
        np.testing.assert_allclose(enhancing.predict(images), expected, atol=1e-6)

    def test_flip_tta_is_the_mean_with_the_mirror_images(self, plain) -> None:
        mirrored = plain.predict(IMAGES[:, :, ::-1])
        expected = (plain.predict(IMAGES) + mirrored) / 2
        np.testing.assert_allclose(plain.predict(IMAGES, flip_tta=True), expected, atol=1e-6)

    @pytest.mark.parametrize("images", [np.zeros((0, SIZE, SIZE), np.uint8), []])
    def test_no_images_give_no_probabilities(self, plain, images) -> None:
        probabilities = plain.predict(images)
        assert (probabilities.dtype, probabilities.shape) == (np.float32, (0, 3))

    @pytest.mark.parametrize(
        "image",
        [
            np.zeros((SIZE, SIZE), np.float32),
            np.zeros((SIZE, SIZE, 3), np.uint8),
            np.zeros(SIZE, np.uint8),
            np.zeros((0, SIZE), np.uint8),
            # What OpenCV returns for a file that it cannot read; a path in place of an image.
            None,
            "face.png",
        ],
    )
    def test_other_images_are_refused(self, plain, image) -> None:
        with pytest.raises(ValueError, match="image 1: expected uint8 of shape"):
            plain.predict([IMAGES[0], image])

    def test_a_single_image_is_refused(self, plain) -> None:
        with pytest.raises(ValueError, match=r"pass a list: predict\(\[image\]\)"):
            plain.predict(IMAGES[0])
