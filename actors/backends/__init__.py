"""Libraries that step environments, one file each, and helpers that bring gymnasium's environments to one form."""
