"""Errors for a GPU, or a connection between GPUs, that has failed."""

from __future__ import annotations


class DeviceFailed(RuntimeError):
    """A device failed under a rank. The rank's process cannot use it again; a new process can."""


class ConnectionFailed(DeviceFailed):
    """A connection between GPUs failed. If it failed because another rank did, that rank's failure is the cause."""
