"""What a trained model does, in pictures."""
