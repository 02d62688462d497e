"""Loggers of the training history: console, TensorBoard, MLflow."""
