"""The `brc` command: its subcommands, `brc export`, and the page of all options."""
