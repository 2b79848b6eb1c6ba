"""Studies: variants of a run times seeds, as a small file. `brc study` trains what is missing and writes one page."""
