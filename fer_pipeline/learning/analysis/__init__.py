"""Inspection of networks: layers, parameters, cost."""
