"""Faces in photographs and clips: detection, alignment, quality, tracks and annotated copies."""
