"""Synthetic images and files in the style of FER2013, for demos and tests without the dataset.

The faces are drawings: the accuracy of a model on them does not carry over to photographs.
"""

from fer_pipeline.data.emotions import FER2013 as EMOTIONS
from fer_pipeline.data.synthetic.faces import draw_face
from fer_pipeline.data.synthetic.files import BROKEN_KINDS, USAGES, write_csv, write_folder

__all__ = ["BROKEN_KINDS", "EMOTIONS", "USAGES", "draw_face", "write_csv", "write_folder"]
