"""Batches of a dataset for TensorFlow: reading, shuffling and augmentation."""
