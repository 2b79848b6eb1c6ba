"""Ray for a run: a local Ray or a cluster's Ray, its nodes, and the placement of parts on them."""
