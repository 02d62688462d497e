"""Facial emotion recognition with FER2013: prepare images, train, evaluate and score.

The public API is `Config`, `load_config`, `Dataset`, `FaceScorer`, `TrainedModel` and
`read_scores`. Each name is
imported when it is first used: `import fer_pipeline` alone imports neither Spark nor TensorFlow.
Without extras, `Config`, `load_config`, `TrainedModel` and, for crops, `FaceScorer` work; the
others need pyarrow.

The packages, from top to bottom. Each package imports only from packages below it:

* `console` and `jobs`: the command `fer-pipeline`, and the command line of each job.
* `pipelines`, `api` and `face_scorer`: one function for each job; datasets, models and scores for
  Python users.
* `spark` and `learning`: the distributed jobs (Spark), and the networks (TensorFlow and Keras).
  They exchange files, and neither imports the other.
* `plots`: all plots (matplotlib).
* `metrics`: all metrics of an evaluation.
* `config` and `cli`: the YAML configuration, and the options and errors on the command line.
* `faces`: faces in photographs and clips: detection, alignment, tracks, annotated copies.
* `data`: images, labels, splits and stored datasets, processed as arrays with NumPy and OpenCV.
* `io`: paths, files and output folders.
* `extras`: the optional packages, and the error that names the extra to install.
* `errors` and `text`: the errors that a user can cause, and the formatting of messages.
"""

import importlib
from typing import TYPE_CHECKING, Any

from fer_pipeline.extras import explain_missing_packages

if TYPE_CHECKING:
    from fer_pipeline.api import Dataset
    from fer_pipeline.config import Config, load_config
    from fer_pipeline.data.scores import read_scores
    from fer_pipeline.face_scorer import FaceScorer
    from fer_pipeline.learning.inference.trained_model import TrainedModel

__version__ = "0.2.0"

__all__ = [
    "Config",
    "Dataset",
    "FaceScorer",
    "TrainedModel",
    "__version__",
    "load_config",
    "read_scores",
]

# The module that defines each public name; it imports no optional package that the name can do
# without.
_MODULES = {
    "Config": "fer_pipeline.config",
    "Dataset": "fer_pipeline.api",
    "FaceScorer": "fer_pipeline.face_scorer",
    "TrainedModel": "fer_pipeline.learning.inference.trained_model",
    "load_config": "fer_pipeline.config",
    "read_scores": "fer_pipeline.data.scores",
}


def __getattr__(name: str) -> Any:
    """Import and return a name of the public API when it is first used (PEP 562).

    Raises:
        AttributeError: The name is not a public name.
        MissingPackageError: A package that the name needs is not installed.
    """
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with explain_missing_packages():
        return getattr(importlib.import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """Return all names of the module, including public names that are not imported yet."""
    return sorted({*globals(), *__all__})
