"""Benchmarks: every figure is a ratio of two measurements of one run. `make bench` runs them."""
