"""The TensorFlow side: data and networks, models, training and evaluation; see `pyproject.toml`."""

import os
import platform

# Before TensorFlow is imported: its start-up notes say nothing to a user, its errors do.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if platform.machine().lower() in ("x86_64", "amd64"):
    # By itself TensorFlow leaves oneDNN off where AVX-512 is missing; there it gives networks 1.2 to
    # 2.9 times the speed (`TF_ENABLE_ONEDNN_OPTS=0 python -m benchmarks networks` is without it).
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
