"""Short programs that use the parts from Python, each in under a minute. Example: `python -m examples.one_process`."""
