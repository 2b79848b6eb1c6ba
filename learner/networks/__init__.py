"""The agents' networks in torch, and what they take in memory and operations."""
