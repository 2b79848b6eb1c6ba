"""Checks before a run starts: options, machine, memory, disks, Ray, and the run that it starts from."""
