"""Analysis of networks: layers, parameters, multiply-adds, speed and class activation."""
