"""The TensorFlow side: feed, networks, training, evaluation."""
