"""What a configuration amounts to: the specification of actors, shards and learner."""
