"""The published policy in numpy, for continuous and for discrete actions."""
