"""The tasks that exist, one file for each benchmark, the catalogue of all of them, and their scores."""
