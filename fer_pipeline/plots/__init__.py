"""Pictures drawn with matplotlib: arrays in, PNG files out."""
