"""All numbers of an evaluation, computed from labels and probabilities."""
