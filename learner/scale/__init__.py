"""How updates are laid over ranks, precisions, threads and recorded graphs."""
