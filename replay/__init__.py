"""Sharded experience replay with a rate limiter that is part of the algorithm. docs/replay.md is its manual.

rows is what travels and is stored; ring and storage keep it and draw from it, gather copies; memory is the files that
outlive a process, locations where they go; rate_limiter holds samples per insert; shard puts these behind one lock.
snapshot writes a shard while it works, restore reads one back, perhaps into other shards. None of these import Ray.
handle is a shard as its clients see it: the actors' writer and the learner's sampler. ray_shard makes a Shard a Ray
actor. policy_store is the way back: what the learner publishes and actors pull. Called by actors, learner and cluster.
"""
