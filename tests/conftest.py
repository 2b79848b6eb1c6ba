"""Shared by all tests: no display, quiet libraries, and a tiny configuration that trains in seconds."""

from __future__ import annotations

import os

os.environ.setdefault("MUJOCO_GL", "disabled")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
