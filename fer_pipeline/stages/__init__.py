"""What the jobs call: each stage from its inputs on disk to its outputs on disk."""
