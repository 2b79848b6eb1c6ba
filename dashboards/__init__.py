"""Views of a run: the files that it writes, and their displays for people. Nothing here imports Ray or torch.

metrics/     the metrics that a run serves to Prometheus, and how they are made
sinks/       where rows and events go: JSON lines, terminal, TensorBoard, Weights & Biases
grafana/     Grafana's dashboards: the code that makes them, and their JSON
prometheus/  Prometheus' configuration, recording rules and alerts
report/      the page of one run or several
progress.py turns the reports of all parts into one row of metrics.
"""
