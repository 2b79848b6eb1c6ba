"""Tests that children obey signals even if a shell started the tests in the background."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

SCRIPT = """
import signal, subprocess, sys
for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
import tests.conftest
sleeper = [sys.executable, "-c", "import time; print(flush=True); time.sleep(600)"]
child = subprocess.Popen(sleeper, stdout=subprocess.PIPE)
child.stdout.readline()
child.send_signal(int(sys.argv[1]))
try:
    child.wait(30)
finally:
    child.kill()
signal.raise_signal(int(sys.argv[1]))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_children_obey_what_their_parent_ignores(number: int) -> None:
    """A child obeys the signal, and the parent goes on to ignore it."""
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(int(number))], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
