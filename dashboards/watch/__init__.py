"""A live page of runs: a server on loopback, and the page that asks it."""
