"""The agents, and the processes that train them.

agents/    the algorithms, in plain torch: BRC (arXiv 2505.23150) and its discrete form
networks/  their networks, and what these take in memory and operations
state/     checkpoints, published policies, and agents that begin with what another has learned
scale/     ranks, sharding, precision, threads and recorded updates
learner.py is one agent with its optimisers, counters and random state. process.py makes the ranks Ray actors, and
jobs.py says what others may ask of them.
"""
