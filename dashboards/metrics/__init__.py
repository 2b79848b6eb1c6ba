"""Metrics that a run serves to Prometheus: their names, how each is made, and the server."""
