"""Test that runs all of tests/cluster/prove.py, if this machine can make several hosts."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.cluster import prove

NEEDED = ("ip", "sshd", "rsync", "redis-server", "nsenter", "curl", "ps", "pkill", "moto_server")


@pytest.mark.cluster
@pytest.mark.timeout(3000)
def test_a_cluster_from_its_first_host_to_its_last_process() -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}:/usr/sbin"
    missing = [name for name in NEEDED if shutil.which(name, path=path) is None]
    if os.getuid() or missing:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing else'}")
    if (refusal := no_hosts()) is not None:
        pytest.skip(f"needs hosts, which cannot be made here: {refusal}")
    with tempfile.TemporaryDirectory(prefix="fh-") as folder:
        prove.main(Path(folder) / "hosts")


def no_hosts() -> str | None:
    """Return why root cannot make network and mount namespaces on this machine; None if it can."""
    name = f"brc-{os.getpid()}"
    attempts = (
        ["ip", "netns", "add", name],
        ["ip", "netns", "del", name],
        ["unshare", "--mount", "--pid", "--uts", "--ipc", "--fork", "true"],
    )
    for attempt in attempts:
        done = subprocess.run(attempt, capture_output=True, text=True, timeout=60)
        if done.returncode:
            return f"{' '.join(attempt)}: {done.stderr.strip()}"
    return None
