"""The TensorFlow side: data and networks, models, training and evaluation; see `pyproject.toml`."""

import os
import platform

# Before TensorFlow is imported: its start-up notes say nothing to a user, its errors do.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if platform.machine().lower() in ("x86_64", "amd64"):
    # TensorFlow turns oneDNN on only where the processor has instructions for neural networks, such
    # as AVX512-VNNI. Others are 1.2 to 2.9 times as fast with it too: `python -m benchmarks
    # networks`, with and without TF_ENABLE_ONEDNN_OPTS=0.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
