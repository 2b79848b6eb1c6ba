"""Execution of updates: ranks, sharding, precision, threads and recorded graphs."""
