"""Grafana dashboards as code. `make docs` writes their JSON, and push.py sends them to a server."""
