"""Destinations of rows and events: JSON lines, terminal, TensorBoard and Weights & Biases."""
