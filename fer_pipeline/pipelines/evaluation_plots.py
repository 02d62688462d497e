"""Plots of an evaluation, and the table of its worst mistakes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import EvaluationFile
from fer_pipeline.learning.analysis.layer_inspector import LayerInspector
from fer_pipeline.metrics.calibration import AccuracyCoverageCurve
from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.samples import EvaluatedImages, SampleSelector
from fer_pipeline.plots import (
    calibration,
    class_activation,
    class_bars,
    confusion_matrix,
    faces,
    feature_maps,
)
from fer_pipeline.plots.class_activation import ActivatedImage, ClassActivations


def plot_metrics(metrics: Metrics, curve: AccuracyCoverageCurve, title: str, folder: Path) -> None:
    """Save the plots of an evaluation's metrics.

    These are the confusion matrix, the bar chart of the counts per class, the reliability diagram,
    and accuracy against coverage.

    Args:
        metrics: Metrics of the evaluation.
        curve: Accuracy and coverage at each confidence threshold.
        title: Title with the names of the model and the dataset.
        folder: Folder to save the plots in.

    Raises:
        StorageError: A file cannot be written.
    """
    confusion_matrix.draw_confusion_matrix(metrics, title, folder / EvaluationFile.CONFUSION_MATRIX)
    class_bars.draw_class_bars(metrics, title, folder / EvaluationFile.CLASS_BARS)
    calibration.draw_reliability_diagram(metrics, title, folder / EvaluationFile.RELIABILITY)
    calibration.draw_accuracy_coverage(metrics, curve, title, folder / EvaluationFile.COVERAGE)


def plot_samples(samples: SampleSelector, title: str, folder: Path) -> None:
    """Save the plots of random examples and of the worst mistakes, and a CSV file of the mistakes.

    The worst mistakes are the wrongly classified images with the highest confidence.

    Args:
        samples: Selected images of the evaluation.
        title: Title with the names of the model and the dataset.
        folder: Folder to save the files in.

    Raises:
        StorageError: A file cannot be written.
    """
    faces.draw_examples(
        samples.examples, samples.classes, title, samples.seed, folder / EvaluationFile.EXAMPLES
    )
    faces.draw_mistakes(samples.mistakes, samples.classes, title, folder / EvaluationFile.MISTAKES)
    mistakes = format_mistakes(samples.mistakes, samples.classes)
    storage.write_text(folder / EvaluationFile.MISTAKES_TABLE, mistakes)


def plot_layers(
    inspector: LayerInspector,
    layers: Sequence[str],
    samples: SampleSelector,
    title: str,
    folder: Path,
) -> None:
    """Save the plots of feature maps and of class activation maps.

    Plots of an earlier evaluation in the folder are deleted first. Feature maps are not plotted if
    `layers` is empty, and class activation maps are not plotted if the network has no convolutions.

    Args:
        inspector: Inspector of the model's layers.
        layers: Names of the layers to plot; may be empty.
        samples: Selected images of the evaluation.
        title: Title with the names of the model and the dataset.
        folder: Folder to save the plots in.

    Raises:
        StorageError: A file cannot be written.
    """
    feature_maps_file = folder / EvaluationFile.FEATURE_MAPS
    storage.remove(feature_maps_file)
    if layers:
        image = samples.inspected_image
        outputs = inspector.compute_layer_outputs(image.pixels, layers)
        output_by_layer = {name: output[0] for name, output in zip(layers, outputs, strict=True)}
        feature_maps.draw_feature_maps(
            image, output_by_layer, samples.classes, title, feature_maps_file
        )
    class_activation_file = folder / EvaluationFile.CLASS_ACTIVATION
    storage.remove(class_activation_file)
    if inspector.cam_layer is not None:
        class_activation.draw_class_activation(
            compute_class_activations(inspector, samples),
            samples.classes,
            inspector.cam_layer,
            title,
            class_activation_file,
        )


def compute_class_activations(
    inspector: LayerInspector, samples: SampleSelector
) -> list[ClassActivations]:
    """Compute the class activation maps of two images of each class.

    These are the most confident of the correctly classified images, and the most confident of the
    wrongly classified images. A class may lack either image. Each image has a map for its true
    class, and another map for the predicted class if that is different.

    Args:
        inspector: Inspector of a model with a layer for class activation maps.
        samples: Selected images of the evaluation.

    Returns:
        The images and maps of each class, in the order of the labels.
    """
    images, labels = [], []
    for class_label in range(len(samples.classes)):
        for image in (
            samples.get_best_correct_image(class_label),
            samples.get_worst_mistake(class_label),
        ):
            for label in _list_activation_map_labels(image):
                images.append(image)
                labels.append(label)
    # All images are in one batch, because each call of the inspector builds a model.
    activation_maps = inspector.compute_class_activation_maps(
        np.concatenate([image.pixels for image in images]), np.array(labels, np.int32)
    )
    remaining_maps = iter(activation_maps)

    def combine_with_next_maps(image: EvaluatedImages) -> ActivatedImage | None:
        """Take the maps of an image from `remaining_maps`, and combine them with the image.

        Args:
            image: A single image, or no image. Images must be passed in the order of their maps.

        Returns:
            The image with its maps by class label; None if there is no image.
        """
        image_maps = {label: next(remaining_maps) for label in _list_activation_map_labels(image)}
        return ActivatedImage(image, image_maps) if len(image) else None

    return [
        ClassActivations(
            best_correct=combine_with_next_maps(samples.get_best_correct_image(label)),
            worst_mistake=combine_with_next_maps(samples.get_worst_mistake(label)),
        )
        for label in range(len(samples.classes))
    ]


def _list_activation_map_labels(image: EvaluatedImages) -> list[int]:
    """Return the labels of the classes to compute class activation maps for.

    Args:
        image: A single image, or no image.

    Returns:
        The predicted and the true class; a single label if they are equal; an empty list without an
        image.
    """
    labels = [*image.predicted_label.tolist(), *image.label.tolist()]
    return list(dict.fromkeys(labels))


def format_mistakes(images: EvaluatedImages, classes: Sequence[str]) -> str:
    """Return wrongly classified images as CSV text: a header, then one line for each image.

    The column `row` is the row number to pass as `--image`. `source` is the file that the image was
    read from, and `record` is the number of the record in this file. `p_true` is the predicted
    probability of the true class.

    Args:
        images: Wrongly classified images.
        classes: Names of the classes, in the order of their labels.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["row", "source", "record", "variant", "emotion", "predicted", "confidence", "p_true"]
    )
    for index, (label, predicted) in enumerate(
        zip(images.label, images.predicted_label, strict=True)
    ):
        writer.writerow(
            [
                images.row[index],
                images.source[index],
                images.record[index],
                images.variant[index],
                classes[label],
                classes[predicted],
                f"{images.confidence[index]:.6f}",
                f"{images.probabilities[index, label]:.6f}",
            ]
        )
    return text.getvalue()
