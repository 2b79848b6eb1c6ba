"""Tests of failures: processes that are killed or hang, full disks, numbers that are not finite."""
