"""Tests of parts together: runs, processes, Ray, other programs."""
