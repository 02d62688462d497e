"""The TensorFlow part of the package: input, networks, training, inference, export and analysis."""

import os
import platform
from pathlib import Path

# The device files of the GPU drivers of Linux and of the Windows subsystem for Linux.
_HAS_GPU_DRIVER = any(Path(device).exists() for device in ("/dev/nvidiactl", "/dev/dxg"))

# These variables must be set before TensorFlow is imported. The first one hides start-up messages
# that do not concern users; without a driver also errors, because TensorFlow then logs that it
# could not initialize one. What fails is raised as an exception nevertheless.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2" if _HAS_GPU_DRIVER else "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
if platform.machine().lower() in ("x86_64", "amd64"):
    # By default TensorFlow enables oneDNN only on processors with instructions for neural networks,
    # such as AVX512-VNNI. But oneDNN makes other processors 1.2 to 2.9 times as fast, too: compare
    # `python -m benchmarks networks` with and without TF_ENABLE_ONEDNN_OPTS=0.
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
