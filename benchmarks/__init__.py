"""Benchmarks of the package; `make bench` runs them.

Most figures are ratios of two measurements of the same run, so that they depend little on the
machine.
"""

# Before any benchmark imports Keras: with TensorFlow's own settings in place of those of the jobs,
# a step of system A takes several times as long, most of it in page faults.
import fer_pipeline.learning  # noqa: F401
