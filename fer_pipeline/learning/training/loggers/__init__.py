"""Reports of a training run: the console, TensorBoard and MLflow."""
