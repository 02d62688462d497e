"""Training of a network: run, loop, optimizers, losses, checkpoints and distribution."""
