"""Views of a run: the files it writes and what a person sees of it.

records appends to events.jsonl, metrics.jsonl and eval.jsonl; all else is a mirror of these: tensorboard, wandb, and
exporter, which answers Prometheus with what metrics declares (samples and tally say how it is made). prometheus/ has
Prometheus' configuration and rules; grafana makes grafana/*.json of what boards and panels say, grafana_push sends it.
progress turns the parts' reports into one row of metrics; console shows rows in a terminal or as plain lines;
report/ makes the page of a run, or of several; published has the paper's curves. The drivers in cluster/ call these;
nothing here knows Ray or torch.
"""
