"""The TensorFlow side: data and networks, models, training and evaluation; see `pyproject.toml`."""

import os

# Before TensorFlow is imported: its start-up notes say nothing to a user, its errors do.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
