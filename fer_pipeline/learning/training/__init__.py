"""The training loop, what it minimises and by what steps, and what a killed run goes on from."""
