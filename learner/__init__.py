"""The BRC agent and the processes that train it.

networks, tanh_normal, categorical, reward_normalizer and brc are the algorithm (arXiv 2505.23150): plain torch, no Ray,
importable with torch alone. footprint says what it takes before torch is there; precision and sharding lay it over
types and ranks from outside. learner holds one agent with its optimisers, counters and random state; dcp writes and
reads them, and checkpoint is the folder that holds this. crew has ranks do the same in lock step; tuning and pace find
the precision and the threads that are fastest on a CPU, and waiting says how threads wait. ray_learner makes the ranks
the Ray processes that the coordinator (cluster/) starts. publishing turns the policy into the flat array that the
numpy policy in actors/ reads.
"""
