"""Benchmarks of the package; `make bench` runs them.

Most figures are ratios of two measurements of the same run, so that they depend little on the
machine.
"""
