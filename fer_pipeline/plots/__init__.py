"""Plots made with matplotlib: each function takes metrics or arrays and writes a PNG file."""
