"""Views of a run: the files it writes and what a person sees of it.

records appends to events.jsonl, metrics.jsonl and eval.jsonl and mirrors metrics to TensorBoard; progress turns the
parts' reports into one row of metrics; console shows rows in a terminal or as plain lines; learning_curves draws the
PNG at a run's end. The drivers in cluster/ call these; nothing here knows Ray or torch.
"""
