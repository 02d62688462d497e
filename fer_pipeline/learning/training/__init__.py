"""Training of a network: training runs, optimizers, losses, checkpoints and several workers."""
