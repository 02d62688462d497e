"""From a dataset on disk to the batches that a network sees."""
