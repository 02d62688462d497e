"""What an evaluation shows of its images: the pictures, and where the worst mistakes stand."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from fer_pipeline.io import storage
from fer_pipeline.io.output_kinds import EvaluationFile
from fer_pipeline.learning.analysis.layer_inspector import LayerInspector
from fer_pipeline.metrics.calibration import AccuracyCoverageCurve
from fer_pipeline.metrics.classification import Metrics
from fer_pipeline.metrics.samples import SampleSelector
from fer_pipeline.plots import calibration, class_activation, feature_maps
from fer_pipeline.plots import class_performance as evaluation_plots
from fer_pipeline.plots import faces as face_plots


def plot_metrics(result: Metrics, curve: AccuracyCoverageCurve, about: str, folder: Path) -> None:
    """Draws the confusion matrix, the bars per class, calibration, and accuracy against coverage.

    Args:
        result: The evaluation.
        curve: Its accuracy against coverage.
        about: What was evaluated on what.
        folder: The evaluation's folder.

    Raises:
        StorageError: A file cannot be written.
    """
    evaluation_plots.draw_confusion_matrix(result, about, folder / EvaluationFile.CONFUSION_MATRIX)
    evaluation_plots.draw_class_bars(result, about, folder / EvaluationFile.CLASS_BARS)
    calibration.draw_reliability_diagram(result, about, folder / EvaluationFile.RELIABILITY)
    calibration.draw_accuracy_coverage(result, curve, about, folder / EvaluationFile.COVERAGE)


def plot_samples(
    inspection: LayerInspector,
    layers: Sequence[str],
    gallery: SampleSelector,
    classes: Sequence[str],
    about: str,
    within: str,
    folder: Path,
) -> None:
    """Draws examples, mistakes, feature maps and class activations.

    A network without convolutions has no class activations, and by default no feature maps; then
    no older picture of them stays either.

    Args:
        inspection: A look into the model.
        layers: Whose outputs are drawn, perhaps none.
        gallery: The images.
        classes: The names of the classes.
        about: What was evaluated on what.
        within: The same, above what goes on inside the model.
        folder: The evaluation's folder.

    Raises:
        StorageError: A file cannot be written.
    """
    examples_file = folder / EvaluationFile.EXAMPLES
    face_plots.draw_examples(gallery.examples, classes, about, gallery.seed, examples_file)
    face_plots.draw_mistakes(gallery.mistakes, classes, about, folder / EvaluationFile.MISTAKES)
    storage.write_text(folder / EvaluationFile.MISTAKES_TABLE, mistakes_table(gallery, classes))
    storage.remove(folder / EvaluationFile.FEATURE_MAPS)
    if layers:
        subject = gallery.inspected_image
        outputs = inspection.layer_outputs(subject.pixels, layers)
        shown = {name: given[0] for name, given in zip(layers, outputs, strict=True)}
        feature_maps.draw_feature_maps(
            subject, shown, classes, within, folder / EvaluationFile.FEATURE_MAPS
        )
    storage.remove(folder / EvaluationFile.CLASS_ACTIVATION)
    if inspection.cam_layer is not None:
        path = folder / EvaluationFile.CLASS_ACTIVATION
        class_activation.draw_class_activation(inspection, gallery, classes, within, path)


def mistakes_table(gallery: SampleSelector, classes: Sequence[str]) -> str:
    """The worst mistakes as CSV, the worst first.

    `row` is what `--image` takes; `source` and `record` say where the image came from; `p_true` is
    the probability that the model gives to the true class.
    """
    faces = gallery.mistakes
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["row", "source", "record", "variant", "emotion", "predicted", "confidence", "p_true"]
    )
    for place, (label, predicted) in enumerate(zip(faces.label, faces.predicted, strict=True)):
        origin = (faces.row[place], faces.source[place], faces.record[place], faces.variant[place])
        given = (faces.confidence[place], faces.probabilities[place, label])
        writer.writerow([*origin, classes[label], classes[predicted], *(f"{p:.6f}" for p in given)])
    return text.getvalue()
