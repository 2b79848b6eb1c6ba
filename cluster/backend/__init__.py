"""Ray: a local one for a run of its own, or a cluster's; its nodes, and where parts go on them."""
