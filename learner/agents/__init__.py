"""The algorithms, in plain torch: BRC, its discrete form, and the parts of their losses."""
