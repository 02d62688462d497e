"""Baseline for reading folders of images: the same work in a loop, without Spark.

python baseline_folders.py FOLDER [--processes N]: each process reads a part of the files below the
folder, decodes them to grey values and resizes them to 48x48 pixels. Unlike the jobs, it neither
hashes nor checks the images, and a damaged file ends it. It prints the number of images.
"""

import argparse
import multiprocessing
import os
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

_IMAGE_SIZE = 48  # height and width, in pixels


def read_images(paths: Sequence[str]) -> int:
    """Read images as one array, uint8 of shape (n, 48, 48), and return their number."""
    cv2.setNumThreads(1)
    images = np.empty((len(paths), _IMAGE_SIZE, _IMAGE_SIZE), np.uint8)
    for target, path in zip(images, paths, strict=True):
        content = np.frombuffer(Path(path).read_bytes(), np.uint8)
        image = cv2.imdecode(content, cv2.IMREAD_GRAYSCALE)
        assert image is not None, path
        target[:] = cv2.resize(image, (_IMAGE_SIZE, _IMAGE_SIZE), interpolation=cv2.INTER_AREA)
    return len(images)


def main() -> None:
    """Read all files below a folder with several processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    paths = sorted(
        f"{folder}/{name}" for folder, _, names in os.walk(arguments.folder) for name in names
    )
    parts = [paths[start :: arguments.processes] for start in range(arguments.processes)]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        print(sum(pool.map(read_images, parts)))


if __name__ == "__main__":
    main()
