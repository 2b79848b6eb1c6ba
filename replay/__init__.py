"""Sharded experience replay with a rate limiter that is part of the algorithm. docs/replay.md is its manual.

store/      the rows of every task in memory, and drawing from them
client/     what actors and the learner use: a handle of a shard, the writer and the sampler
snapshots/  writing a shard to files while it works, and reading it back
rate_limiter.py holds the ratio of samples to inserts, and shard.py puts it and the store behind one lock.
policy_store.py is the way back: the learner publishes a policy, and actors pull it. Only process.py and placement.py
import Ray.
"""
