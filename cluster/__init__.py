"""Makes a system of the parts: the `brc` command, a run's configuration, and the processes that conduct it.

cli/        the `brc` command
config/     the options of a run and the presets
plan/       what a configuration amounts to: the specification of every part
preflight/  all checks before a run starts
run/        what a run keeps and shows: its folder, registry entry, session and checkpoints
supervise/  the coordinator and its view of the processes that it starts and replaces
backend/    Ray, on this machine or on a cluster
deploy/     cluster descriptions, and commands sent to a cluster
train.py is the path from a configuration to a finished run, and serial.py the run in one process. This package imports
all others; none of them imports it.
"""
