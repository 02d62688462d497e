"""Facial emotion recognition with FER2013: prepare images, train, evaluate and score.

The packages, each of which imports only from those below it:

* `pipelines`: one function for each job; the entry points in `jobs/` call them.
* `spark` and `learning`: the distributed side (Spark) and the networks (TensorFlow and Keras).
  They exchange files, and neither imports the other.
* `plots`: all pictures (matplotlib).
* `metrics`: all numbers of an evaluation.
* `config` and `cli`: the YAML configuration, and the options and errors on the command line.
* `data`: images, labels, splits and stored datasets; NumPy and OpenCV on plain arrays.
* `io`: paths, files and output folders.
* `errors` and `text`: the errors that a user can cause, and texts for messages.
"""

__version__ = "0.1.0"
