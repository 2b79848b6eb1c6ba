"""The rows of every task in memory, and drawing from them."""
