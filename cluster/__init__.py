"""What turns the parts into a system: configuration, command line, and the drivers of a run.

config and presets say what a run is, validation refuses what cannot work before anything starts, plan derives the specs
that learner, actors and replay are made from. coordinator drives a run on Ray, serial the same classes in one process;
both share session (records, evaluations, checkpoints) and run_folder (names, locks, resume). cli is the `brc` command.
"""
