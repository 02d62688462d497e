"""Paths, files and output folders; imports neither Spark nor TensorFlow."""
