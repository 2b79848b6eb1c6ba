"""Steps environments and feeds replay. Nothing here imports torch, except the image encoder of `policies`.

benchmarks/  the tasks that exist, one file for each benchmark, and how they are scored
backends/    one file for each library that steps environments, behind the interface of environments.py
policies/    the published policy in numpy
actor.py is the loop that fills replay and evaluator.py its deterministic twin; both work in one process. process.py
makes them Ray actors, and fleet.py keeps the desired number of these alive.
"""
