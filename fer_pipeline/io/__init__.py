"""Paths, files and output folders. The package imports neither Spark nor TensorFlow."""
