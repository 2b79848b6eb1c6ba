"""The clients of actors and the learner: a handle of a shard, the writer and the sampler."""
