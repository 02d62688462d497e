"""The TensorFlow side: input, networks, training, inference, export and analysis."""

import os
import platform

# Before TensorFlow is imported: hide its start-up notes, which do not concern users.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if platform.machine().lower() in ("x86_64", "amd64"):
    # TensorFlow enables oneDNN only on processors with instructions for neural networks, such as
    # AVX512-VNNI. Other processors are 1.2 to 2.9 times as fast with it, too: compare `python -m
    # benchmarks networks` with and without TF_ENABLE_ONEDNN_OPTS=0.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
