"""The metrics that a run answers Prometheus with: their names, how each is made, and the server."""
