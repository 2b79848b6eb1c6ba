"""Coordinator of a distributed run, and the shards, learner and evaluators that it watches and replaces."""
