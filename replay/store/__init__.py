"""The rows of every task in memory, and sampling from them."""
