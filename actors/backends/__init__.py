"""Libraries that step environments, one file each, and what brings gymnasium's environments to one form."""
