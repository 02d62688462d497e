"""Baseline for photographs: decoding and detection of faces alone, without Spark and a model.

python baseline_photographs.py FOLDER [--processes N]: each process decodes a part of the files in a
folder with OpenCV, and finds their faces with the detector of the job. It prints the number of
faces.
"""

import argparse
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import cv2

from fer_pipeline.faces.detectors import DetectorOptions
from fer_pipeline.faces.photographs import find_faces


def count_faces(paths: Sequence[Path]) -> int:
    """Return the number of faces in images."""
    cv2.setNumThreads(1)
    options = DetectorOptions()
    return sum(
        len(find_faces(cv2.imread(str(path), cv2.IMREAD_COLOR_RGB), options)) for path in paths
    )


def main() -> None:
    """Read all files of a folder with several processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    paths = sorted(Path(arguments.folder).iterdir())
    parts = [paths[start :: arguments.processes] for start in range(arguments.processes)]
    with multiprocessing.get_context("spawn").Pool(arguments.processes) as pool:
        print(sum(pool.map(count_faces, parts)))


if __name__ == "__main__":
    main()
