"""The configuration of a run: its options, the presets, and the paths in it."""
