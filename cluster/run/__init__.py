"""What a run keeps and shows: its folder, registry entry, session, checkpoints and mirrors."""
