"""Content of the plots of an evaluation, read back from their pixels."""

from pathlib import Path

import cv2
import keras
import numpy as np
import numpy.typing as npt
import pytest
from matplotlib import colors

from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import StorageError
from fer_pipeline.learning.analysis.layer_inspector import LayerInspector
from fer_pipeline.learning.inference import serving_model
from fer_pipeline.metrics.calibration import compute_accuracy_coverage_curve
from fer_pipeline.metrics.classification import compute_metrics
from fer_pipeline.metrics.samples import EvaluatedImages, SampleSelector
from fer_pipeline.pipelines import evaluation_plots
from fer_pipeline.plots import calibration, class_activation, feature_maps
from fer_pipeline.plots import faces as face_plots
from fer_pipeline.plots.style import BLUE, ORANGE, VERMILION
from tests.helpers.images import read_image

CLASSES = ("angry", "happy", "sad")
SIZE = 8


def make_images(labels: list[int], predicted: list[int], level: int = 100) -> EvaluatedImages:
    """Return plain images of one grey level, each predicted with 0.8."""
    rows = len(labels)
    probabilities = np.full((rows, 3), 0.1, np.float32)
    probabilities[np.arange(rows), predicted] = 0.8
    return EvaluatedImages.from_batch(
        0,
        np.full((rows, SIZE, SIZE), level, np.uint8),
        probabilities,
        {
            "label": np.array(labels, np.int32),
            "source": np.array(["/data/a_very_long_name_of_a_$source$_file.csv"] * rows, object),
            "record": np.arange(rows) * 1000,
            "variant": np.array(["original"] * rows, object),
        },
    )


def read_plot(path: Path) -> npt.NDArray[np.uint8]:
    """Return a plot as RGB."""
    return np.asarray(cv2.cvtColor(read_image(path), cv2.COLOR_BGR2RGB), np.uint8)


def count_areas(
    plot: npt.NDArray[np.uint8], color: str | tuple[float, float, float], min_pixels: int
) -> int:
    """Return the number of connected areas of a colour with a minimum number of pixels."""
    rgb = np.round(255 * np.array(colors.to_rgb(color)))
    mask = np.all(np.abs(plot - rgb) <= 1, axis=-1).astype(np.uint8)
    _, _, statistics, _ = cv2.connectedComponentsWithStats(mask)
    return int((statistics[1:, cv2.CC_STAT_AREA] >= min_pixels).sum())


GREY = "#646464"  # of level 100


class TestFaces:
    def test_only_wrongly_classified_examples_have_a_frame(self, tmp_path):
        images = make_images([0, 1, 2, 1, 0, 2, 2], [0, 1, 0, 2, 0, 2, 1])
        face_plots.draw_examples(images, CLASSES, "about", 0, tmp_path / "examples.png")
        plot = read_plot(tmp_path / "examples.png")
        assert count_areas(plot, GREY, 10000) == 7
        # A frame has more pixels than any letter.
        assert count_areas(plot, VERMILION, 1000) == 3

    @pytest.mark.parametrize("count", [1, 5, 6, 25])
    def test_all_mistakes_are_drawn(self, tmp_path, count):
        images = make_images([0] * count, [1] * count)
        face_plots.draw_mistakes(images, CLASSES, "about $x", tmp_path / "mistakes.png")
        plot = read_plot(tmp_path / "mistakes.png")
        assert count_areas(plot, GREY, 10000) == count

    def test_no_mistakes_give_a_plot_with_a_title(self, tmp_path):
        no_images = make_images([0], [0]).take(np.arange(0))
        face_plots.draw_mistakes(no_images, CLASSES, "about", tmp_path / "mistakes.png")
        # Only the title is drawn.
        assert (read_plot(tmp_path / "mistakes.png") < 60).all(axis=-1).sum() > 300

    def test_an_unwritable_path_is_a_storage_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match=r"file/mistakes\.png: cannot be written"):
            face_plots.draw_mistakes(
                make_images([0], [1]), CLASSES, "", tmp_path / "file" / "mistakes.png"
            )


class TestFeatureMaps:
    def draw(self, tmp_path: Path, **outputs: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        arrays = {name: np.array(values, np.float32) for name, values in outputs.items()}
        feature_maps.draw_feature_maps(
            make_images([0], [1]), arrays, CLASSES, "about", tmp_path / "maps.png"
        )
        return read_plot(tmp_path / "maps.png")

    def test_each_map_is_drawn_in_the_scale_of_its_layer(self, tmp_path):
        least, largest = "#440154", "#fde725"  # the ends of viridis
        maps = np.zeros((4, 4, 3))
        maps[:, :, 1] = 5.0
        plot = self.draw(tmp_path, layer=maps)
        assert count_areas(plot, least, 1000) == 2
        assert count_areas(plot, largest, 1000) == 1

    def test_values_below_zero_have_colours_of_their_own(self, tmp_path):
        maps = np.zeros((4, 4, 3))
        maps[:, :, 1], maps[:, :, 2] = -5.0, 5.0
        plot = self.draw(tmp_path, layer=maps)
        assert count_areas(plot, "#2d004b", 1000) == 1  # the ends of PuOr
        assert count_areas(plot, "#7f3b08", 1000) == 1

    def test_a_layer_that_is_all_zero_and_units_are_drawn(self, tmp_path):
        few = self.draw(tmp_path, dead=np.zeros((2, 2, 5)), units=np.arange(7))
        many = self.draw(tmp_path, dead=np.zeros((2, 2, 5)), units=np.arange(3136))
        assert count_areas(few, "#440154", 1000) == 5
        assert len(few) < len(many) < 1200

    def test_the_maps_that_vary_most_are_selected_in_their_order(self):
        maps = np.zeros((2, 2, 40), np.float32)
        varied = [*range(1, 20), *range(27, 40)]
        maps[0, 0, varied] = 1 + np.arange(32)
        maps_shown, note = feature_maps.select_most_varied_maps(maps)
        assert np.array_equal(maps_shown, maps[:, :, varied])
        assert note == "40 maps of 2x2, 8 all 0; the 32 that vary most"
        all_maps, note = feature_maps.select_most_varied_maps(maps[:, :, 1:4])
        assert np.array_equal(all_maps, maps[:, :, 1:4])
        assert note == "3 maps of 2x2"


class TestClassActivation:
    def make_inspector(self, sign: float) -> LayerInspector:
        """Return a network in which each pixel is evidence for (1) or against (-1) each class."""
        network = keras.Sequential(
            [
                keras.Input((SIZE, SIZE, 1)),
                keras.layers.Conv2D(1, 1, activation="relu", bias_initializer="ones"),
                keras.layers.GlobalAveragePooling2D(),
                keras.layers.Dense(3),
            ]
        )
        network.layers[-1].set_weights([np.full((1, 3), sign), np.zeros(3)])
        network.layers[0].set_weights([np.zeros((1, 1, 1, 1)), np.ones(1)])
        return LayerInspector(
            serving_model.build_serving_model(network, SIZE, Normalization.centered())
        )

    def draw(self, inspector: LayerInspector, samples: SampleSelector, path: Path) -> None:
        activations = evaluation_plots.compute_class_activations(inspector, samples)
        class_activation.draw_class_activation(activations, CLASSES, "conv2d", "title", path)

    @pytest.mark.parametrize("sign", [1.0, -1.0])
    def test_activations_are_drawn_where_pixels_are_evidence_for_the_class(self, tmp_path, sign):
        samples = SampleSelector(CLASSES, 0)
        # Angry: recognised. Happy: recognised and mistaken. Sad: no image.
        samples.update(make_images([0, 1, 1], [0, 1, 2]))
        path = tmp_path / "activation.png"
        self.draw(self.make_inspector(sign), samples, path)
        plot = read_plot(path)
        # Images: two recognised, one mistake; four maps, transparent where they are all 0.
        assert count_areas(plot, GREY, 10000) == (3 if sign > 0 else 7)
        red, green, blue = 0.55 * np.array(colors.to_rgb("#fcffa4")) + 0.45 * 100 / 255
        assert count_areas(plot, (red, green, blue), 10000) == (4 if sign > 0 else 0)

    def test_without_recognised_images_only_the_mistake_is_drawn(self, tmp_path):
        samples = SampleSelector(CLASSES, 0)
        samples.update(make_images([0], [1]))
        path = tmp_path / "activation.png"
        self.draw(self.make_inspector(1.0), samples, path)
        assert count_areas(read_plot(path), GREY, 10000) == 1


class TestConfidence:
    def make_predictions(self, *groups: tuple[int, int, float]) -> tuple[np.ndarray, np.ndarray]:
        """Return labels and probabilities of groups (images, correct images, confidence)."""
        confidence = np.concatenate([[level] * count for count, _, level in groups])
        labels = np.concatenate([np.arange(count) >= right for count, right, _ in groups])
        return labels.astype(int), np.stack(
            [confidence, 1 - confidence, np.zeros(len(confidence))], axis=1
        )

    def test_a_reliability_diagram_has_a_bar_for_each_bin_with_images(self, tmp_path):
        # The confidence equals the accuracy, and the bars are too far apart to touch.
        groups = (40, 20, 0.5), (40, 28, 0.7), (40, 36, 0.9)
        metrics = compute_metrics(*self.make_predictions(*groups), CLASSES)
        assert metrics.calibration.error == pytest.approx(0)
        calibration.draw_reliability_diagram(metrics, "about $x", tmp_path / "picture.png")
        plot = read_plot(tmp_path / "picture.png")
        # Each bar is one area, except if the dashed line crosses it.
        lower = plot[int(0.7 * len(plot)) :]
        assert count_areas(lower, BLUE, 1000) == 3
        assert count_areas(plot, BLUE, 1000) >= 6
        # Only in the legend.
        assert count_areas(plot[: int(0.9 * len(plot))], ORANGE, 10) == 0

    def test_a_reliability_diagram_hatches_missing_accuracy(self, tmp_path):
        metrics = compute_metrics(*self.make_predictions((40, 4, 0.9), (40, 40, 0.6)), CLASSES)
        calibration.draw_reliability_diagram(metrics, "about", tmp_path / "picture.png")
        plot = read_plot(tmp_path / "picture.png")
        assert count_areas(plot[: int(0.9 * len(plot))], ORANGE, 10) > 10

    @pytest.mark.parametrize("count", [1, 3, 400])
    def test_coverage_is_drawn_for_few_and_for_many_images(self, tmp_path, count):
        random = np.random.default_rng(0)
        labels, probabilities = random.integers(3, size=count), random.dirichlet(np.ones(3), count)
        metrics = compute_metrics(labels, probabilities, CLASSES)
        path = tmp_path / "picture.png"
        calibration.draw_accuracy_coverage(
            metrics, compute_accuracy_coverage_curve(labels, probabilities), "about $x", path
        )
        assert count_areas(read_plot(path), BLUE, 30) >= 1

    def test_an_unwritable_path_is_a_storage_error(self, tmp_path):
        (tmp_path / "file").write_text("")
        metrics = compute_metrics([0, 1], [[0.6, 0.4, 0], [0.7, 0.3, 0]], CLASSES)
        with pytest.raises(StorageError, match=r"file/picture\.png: cannot be written"):
            calibration.draw_reliability_diagram(metrics, "", tmp_path / "file" / "picture.png")
