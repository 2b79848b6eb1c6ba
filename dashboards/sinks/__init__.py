"""Where rows and events go: JSON lines, terminal, TensorBoard and Weights & Biases."""
