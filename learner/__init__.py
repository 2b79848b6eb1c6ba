"""The BRC agent and the process that trains it.

networks, tanh_normal, categorical, reward_normalizer and brc are the algorithm (arXiv 2505.23150): plain torch, no Ray,
importable with torch alone. learner holds one agent with its optimisers, counters and random state; checkpoint writes
and reads it. ray_learner is the Ray process around them that the coordinator (cluster/) starts. publishing turns the
policy into the flat array that the numpy policy in actors/ reads.
"""
