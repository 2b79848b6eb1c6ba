"""Everything that steps environments: what tasks exist, how they are stepped, and the loop that feeds replay.

catalogue and dmc say what tasks and suites there are; environments is the one interface over their backends
(envpool_backend, dm_control_backend). policy is the numpy policy; segments cuts streams into rows and episodes keeps
returns. actor is the plain loop over these and evaluator its deterministic twin, both usable in one process; ray_actor
makes them Ray actors and fleet keeps the desired number of them alive. Nothing here imports torch.
"""
