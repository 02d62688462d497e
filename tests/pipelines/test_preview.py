import dataclasses
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
import tensorflow as tf

from fer_pipeline.config import Config, load_config
from fer_pipeline.data.dataset import StoredDataset
from fer_pipeline.errors import ConfigError, DatasetError, StorageError
from fer_pipeline.learning.input import augmentation_examples
from fer_pipeline.learning.input.augmentation import make_augment_fn
from fer_pipeline.learning.input.mixup import make_mixup_fn
from fer_pipeline.pipelines.preview import preview
from tests.helpers.images import read_image
from tests.helpers.stored_datasets import Rowset, write_dataset

CLASSES = ("angry", "happy", "sad")
SIZE = 16
SCALE = 5  # the smallest factor that enlarges an image to 80 pixels
EVERYTHING = (
    "flip=true",
    "rotation=15",
    "shift=0.125",
    "zoom=0.1",
    "shear=0.25",
    "contrast=0.3",
    "brightness=0.2",
    "random_erasing=0.25",
)


def make_config(*operations: str, **other_settings: object) -> Config:
    """Return a configuration; a double underscore in a name is a dot in the key."""
    return load_config(
        None,
        [f"training.augmentation.{key}" for key in operations]
        + [f"{key.replace('__', '.')}={setting}" for key, setting in other_settings.items()],
    )


@pytest.fixture(scope="module")
def dataset(rows: Rowset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"), {"train": rows})


@pytest.fixture
def images(rows: Rowset) -> npt.NDArray[np.float32]:
    """One image of each class, as pixel values."""
    first = [int(np.flatnonzero(rows.labels == label)[0]) for label in range(3)]
    return rows.pixels[first].astype(np.float32)


def find_images(picture: Path, images: npt.NDArray[np.uint8]) -> dict[int, list[tuple[int, int]]]:
    """Return the places of the images in the picture, compared pixel by pixel, by their index."""
    sheet = read_image(picture, cv2.IMREAD_GRAYSCALE)
    places_by_index: dict[int, list[tuple[int, int]]] = {}
    for index, face in enumerate(images):
        large = np.ascontiguousarray(face.repeat(SCALE, axis=0).repeat(SCALE, axis=1))
        distance = cv2.matchTemplate(sheet, large, cv2.TM_SQDIFF)
        for y, x in np.argwhere(distance < 1000):
            if np.array_equal(sheet[y : y + len(large), x : x + len(large)], large):
                places_by_index.setdefault(index, []).append((int(x), int(y)))
    return places_by_index


def test_without_augmentation_the_error_names_the_settings(tmp_path):
    with pytest.raises(ConfigError) as error:
        preview(str(tmp_path / "none"), make_config("border=reflect"), tmp_path / "it.png")
    assert str(error.value) == (
        "nothing to preview: training changes no image; set one of training.augmentation (flip,"
        " rotation, shift, zoom, shear, contrast, brightness, random_erasing) or"
        " training.mixup_alpha"
    )
    assert list(tmp_path.iterdir()) == []


def test_a_missing_dataset_is_an_error(tmp_path):
    with pytest.raises(DatasetError, match=r"none: no such folder; create one with the preprocess"):
        preview(str(tmp_path / "none"), make_config("flip=true"), tmp_path / "it.png")


def test_a_dataset_without_training_rows_is_refused(rows, tmp_path):
    write_dataset(tmp_path / "d", {"test": rows})
    with pytest.raises(DatasetError, match="the train split is empty"):
        preview(str(tmp_path / "d"), make_config("flip=true"), tmp_path / "it.png")


def test_a_folder_is_refused_as_output(dataset, tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(StorageError, match="cannot be written"):
        preview(str(dataset), make_config("flip=true"), tmp_path / "folder.png")


def test_another_file_type_than_png_is_refused(dataset, tmp_path):
    with pytest.raises(StorageError) as error:
        preview(str(dataset), make_config("flip=true"), tmp_path / "it.xyz")
    assert str(error.value).startswith(f"{tmp_path / 'it.xyz'}: ")
    assert "ends in .png" in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_the_picture_shows_one_original_of_each_class_and_its_flip(dataset, rows, tmp_path):
    picture = tmp_path / "new" / "it.png"
    message = preview(f"file://{dataset}", make_config("flip=true"), picture)
    assert message == f"flip on 3 images: {picture}"
    originals = find_images(picture, rows.pixels)
    assert sorted(rows.labels[index] for index in originals) == [0, 1, 2]
    mirrored = find_images(picture, rows.pixels[:, :, ::-1])
    assert set(mirrored) == set(originals)
    tops = []
    for index, places in originals.items():
        columns = sorted(x for x, _ in [*places, *mirrored[index]])
        assert len(columns) == 6  # the original, the flip, four draws
        assert len({y for _, y in [*places, *mirrored[index]]}) == 1, "one row"
        assert (columns[0], places[0][1]) in places, "the original stands first"
        assert (columns[1], places[0][1]) in mirrored[index], "then the flip"
        tops.append((places[0][1], rows.labels[index]))
    assert [label for _, label in sorted(tops)] == [0, 1, 2], "the rows are in the classes' order"


def test_only_the_seed_decides_the_images(dataset, rows, tmp_path):
    def preview_bytes(name: str, **settings: int) -> bytes:
        preview(str(dataset), make_config("flip=true", **settings), tmp_path / name)
        return (tmp_path / name).read_bytes()

    first = preview_bytes("first.png")
    assert preview_bytes("again.png") == first
    assert preview_bytes("batch.png", inference__batch_size=7) == first
    assert preview_bytes("training.png", loader__batch_size=7) == first
    seen = set()
    for seed in range(1, 6):
        preview_bytes("other.png", seed=seed)
        seen |= set(find_images(tmp_path / "other.png", rows.pixels))
    assert len(seen) > 8, "of at most 15 that five seeds can choose"


def test_a_class_without_training_rows_has_no_row(rows, tmp_path):
    has_label = rows.labels != 1
    remaining_rows = dataclasses.replace(
        rows, pixels=rows.pixels[has_label], labels=rows.labels[has_label]
    )
    write_dataset(tmp_path / "d", {"train": remaining_rows})
    assert StoredDataset.open(tmp_path / "d").manifest.classes == list(CLASSES)
    message = preview(
        str(tmp_path / "d"), make_config(training__mixup_alpha=0.4), tmp_path / "it.png"
    )
    assert message.startswith("mixup on 2 images: ")


def test_each_operation_is_shown_alone_at_the_limits_of_its_range(images):
    groups = augmentation_examples.make_single_operation_examples(
        images, make_config(*EVERYTHING).training.augmentation, seed=1
    )
    assert [(g.title, g.range, [c.label for c in g.columns]) for g in groups] == [
        ("flip", "every second", ["mirrored"]),
        ("rotation", "±15°", ["−15°", "+15°"]),  # noqa: RUF001
        ("shift", "±12.5 % of the side", ["left, up", "right, down"]),
        ("zoom", "×0.9 to ×1.1", ["×0.9", "×1.1"]),  # noqa: RUF001
        ("shear", "±0.25", ["−0.25", "+0.25"]),  # noqa: RUF001
        ("contrast", "×0.7 to ×1.3", ["×0.7", "×1.3"]),  # noqa: RUF001
        ("brightness", "±51 of 255", ["−51", "+51"]),  # noqa: RUF001
        ("random_erasing", "a square of up to 4 px", ["4 px", "4 px"]),
    ]
    images_by_operation = {
        group.title: [column.images for column in group.columns] for group in groups
    }
    np.testing.assert_array_equal(images_by_operation["flip"][0], images[:, :, ::-1])
    left, right = np.zeros_like(images), np.zeros_like(images)
    left[:, :-2, :-2], right[:, 2:, 2:] = images[:, 2:, 2:], images[:, :-2, :-2]
    np.testing.assert_array_equal(images_by_operation["shift"], [left, right])
    tones = [(images + tone).clip(0, 255) for tone in (-51, 51)]
    np.testing.assert_allclose(images_by_operation["brightness"], tones, atol=1e-3)
    mean = images.mean(axis=(1, 2), keepdims=True)
    flat, steep = ((mean + factor * (images - mean)).clip(0, 255) for factor in (0.7, 1.3))
    np.testing.assert_allclose(images_by_operation["contrast"], [flat, steep], atol=1e-3)
    for angle, turned in zip((-15, 15), images_by_operation["rotation"], strict=True):
        matrix = cv2.getRotationMatrix2D((7.5, 7.5), angle, 1)
        for image, rotated in zip(images, turned, strict=True):
            expected = cv2.warpAffine(image, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR)
            assert np.abs(rotated - expected).max() < 255 / 16  # OpenCV's 1/32 pixel, along x and y
    for number, erased in enumerate(images_by_operation["random_erasing"]):
        assert ((erased != images).sum(axis=(1, 2)) <= 16).all()
        assert (erased != images).any(axis=(1, 2)).all()
        assert not np.array_equal(erased, images_by_operation["random_erasing"][1 - number])
    rim, smaller, larger = (
        images[:, 0].mean(),
        *(zoomed[:, 0].mean() for zoomed in images_by_operation["zoom"]),
    )
    assert smaller < rim / 2 < larger, "a smaller image leaves a black rim, a larger one none"


def test_all_operations_together_give_the_images_of_training(images):
    training = make_config(*EVERYTHING).training
    (group,) = augmentation_examples.make_random_examples(
        images, np.arange(3, dtype=np.int32), CLASSES, training, seed=7
    )
    assert (group.title, len(group.columns)) == ("as training sees them", 4)
    augment = make_augment_fn(training.augmentation, SIZE)
    assert augment is not None
    for number, column in enumerate(group.columns):
        expected = augment(tf.constant(images[..., None]), tf.constant((7, number)))
        np.testing.assert_array_equal(column.images, expected.numpy()[..., 0])
        assert column.captions == ()


def test_mixup_is_last_and_captions_name_the_shares(images):
    training = make_config(*EVERYTHING, training__mixup_alpha=0.6).training
    before, after = augmentation_examples.make_random_examples(
        images, np.array([2, 0, 1]), CLASSES, training, 7, 12
    )
    assert (before.title, after.title) == ("before mixup", "as training sees them")
    assert after.range == "with mixup, alpha 0.6"
    assert (len(before.columns), len(after.columns)) == (6, 6)
    for number, (plain, mixed) in enumerate(zip(before.columns, after.columns, strict=True)):
        targets = tf.one_hot([2, 0, 1], 3)
        batch = tf.constant(plain.images[..., None])
        expected, shares = make_mixup_fn(0.6)(batch, targets, tf.constant((7, number)))
        np.testing.assert_array_equal(mixed.images, expected.numpy()[..., 0])
        for caption, row in zip(mixed.captions, shares.numpy(), strict=True):
            lines = [line.split(" % ") for line in caption.split("\n")]
            percentages = {name: share for share, name in lines}
            for name, share in zip(CLASSES, row, strict=True):
                assert abs(float(percentages.get(name, 0)) - 100 * share) <= 0.51


def test_many_operations_take_a_second_row_of_pictures(dataset, tmp_path):
    heights = {}
    for name, keys in (("few", EVERYTHING[:4]), ("many", EVERYTHING)):
        preview(str(dataset), make_config(*keys), tmp_path / f"{name}.png")
        height, width = read_image(tmp_path / f"{name}.png", cv2.IMREAD_GRAYSCALE).shape
        heights[name] = height
        assert width < 1700
    assert heights["many"] > 1.7 * heights["few"]


def test_a_long_folder_name_with_dollar_signs_fits_the_title(rows, tmp_path: Path):
    folder = write_dataset(tmp_path / ("a $very__long$ name " * 6).strip(), {"train": rows})
    preview(str(folder), make_config("flip=true"), tmp_path / "it.png")
    sheet = read_image(tmp_path / "it.png", cv2.IMREAD_GRAYSCALE)
    assert (sheet[:, -10:] == 255).all(), "the title is cut off"
    assert sheet[:40, 700:].min() < 100, "the title is not there"
