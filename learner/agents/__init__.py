"""The algorithms, in plain torch: BRC, its discrete form, and what their losses are made of."""
