"""The `brc` command: its words, `brc export`, and the page of all options."""
