"""Makes a system of the parts: the `brc` command, what a run is and whether it can work, and who conducts it.

config and presets say what a run is, validation refuses what cannot work, plan derives every part. coordinator conducts
a run on Ray, serial one in a process of its own; session, run_folder and registry are what both leave behind and listen
to. On a cluster ray_coordinator keeps the coordinator alive, on_cluster starts and follows it, remote brings commands
there, and node.sh keeps Ray running on a host. The yaml files describe clusters. Imports all other folders; nothing
imports this one.
"""
