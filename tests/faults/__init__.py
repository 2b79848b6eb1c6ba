"""Tests of what fails: processes that are killed or hang, disks that are full, numbers that are not finite."""
