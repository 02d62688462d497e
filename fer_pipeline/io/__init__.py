"""Files, paths and finished output folders; knows neither Spark nor TensorFlow."""
