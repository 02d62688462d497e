"""Trained models: their files, loading them, and predicting the emotions of images."""
