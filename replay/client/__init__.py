"""What actors and the learner use: a handle of a shard, the writer and the sampler."""
