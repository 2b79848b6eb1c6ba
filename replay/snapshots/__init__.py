"""Writing a shard to files while it works, and reading it back."""
