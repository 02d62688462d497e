"""Callbacks that log a training run: to the console, to TensorBoard and to MLflow."""
