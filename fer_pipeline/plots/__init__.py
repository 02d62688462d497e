"""Plots of matplotlib: arrays in, PNG files out."""
