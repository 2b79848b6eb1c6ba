"""Sharded experience replay with a rate limiter that is part of the algorithm.

rows is what travels and is stored; storage keeps one ring of rows per task with implicit next observations;
rate_limiter holds samples per insert; shard puts the two behind one lock, drops repeated pushes and answers at once.
None of these import Ray. client has the two sides that talk to shards: the actors' Writer and the learner's Sampler.
ray_shard makes a Shard a Ray actor and its replies futures. snapshot writes a shard to a folder and reads it back.
policy_store is the way back: what the learner publishes and actors pull.
"""
