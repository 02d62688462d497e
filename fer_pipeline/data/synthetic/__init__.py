"""Procedural FER2013 look-alikes for demos and tests where the real data set is missing.

The faces are drawings, not photographs: a model trained on them says nothing about people.
"""

from fer_pipeline.data.emotions import FER2013 as EMOTIONS
from fer_pipeline.data.synthetic.faces import draw_face
from fer_pipeline.data.synthetic.files import BROKEN_KINDS, USAGES, write_csv, write_folder

__all__ = ["BROKEN_KINDS", "EMOTIONS", "USAGES", "draw_face", "write_csv", "write_folder"]
