"""Export of trained models to SavedModel and LiteRT."""
