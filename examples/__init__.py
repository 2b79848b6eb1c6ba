"""Short programs that use the parts from Python, each in under a minute: `python -m examples.one_process`, say."""
