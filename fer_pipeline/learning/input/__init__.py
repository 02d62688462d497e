"""Reading of datasets into batches, and augmentation within training."""
