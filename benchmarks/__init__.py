"""Measurements of speed, each against another side: raw envpool, the matmul rate, serial execution, the reference.

`python -m benchmarks` runs them all. `python -m benchmarks.learner --widths 512` runs one of them with its own options.
Every case is one JSON object a line (report.py); a ratio above 1 is better for us. Repeats of the two sides alternate,
so that other load on the machine affects both.
"""
