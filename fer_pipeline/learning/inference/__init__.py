"""Trained models: on disk, loaded, and run over images."""
