"""Derives the specifications of actors, shards and learner from a configuration."""
