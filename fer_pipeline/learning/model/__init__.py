"""A trained model: on disk, in other forms, at work."""
