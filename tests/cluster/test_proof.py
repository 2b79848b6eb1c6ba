"""The whole of tests/cluster/prove.py, where this machine can be several hosts."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest

from tests.cluster import prove

NEEDED = ("ip", "sshd", "rsync", "redis-server", "nsenter", "curl", "ps", "pkill", "moto_server")


@pytest.mark.cluster
@pytest.mark.timeout(3000)
def test_a_cluster_from_its_first_host_to_its_last_process() -> None:
    missing = [name for name in NEEDED if shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if os.getuid() or missing:
        pytest.skip(f"needs root and {', '.join(missing) or 'nothing else'}")
    with tempfile.TemporaryDirectory(prefix="fh-") as folder:
        prove.main(Path(folder) / "hosts")
