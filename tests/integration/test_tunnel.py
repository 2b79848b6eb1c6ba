"""Tests of the tunnel to a cluster's head: it ends with the process that opened it, however that process ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.live import wait_until

# A program in place of Ray: it listens as `ray dashboard` does, with a child in place of ssh.
LISTENER = """
import socket, subprocess, sys, time
child = subprocess.Popen(["sleep", "600"])
listening = socket.create_server(("127.0.0.1", int(sys.argv[sys.argv.index("--port") + 1])))
time.sleep(600)
"""
OPENER = f"""
import json, os, psutil, sys, time
from pathlib import Path
from cluster.deploy import remote
remote.RAY = (sys.executable, "-c", {LISTENER!r})
with remote.tunnel(Path("cluster.yaml")) as address:
    assert remote.answers(int(address.rsplit(":", 1)[1]))
    print(json.dumps([child.pid for child in psutil.Process().children(recursive=True)]), flush=True)
    if sys.argv[1] == "wait":
        time.sleep(600)
    if sys.argv[1] == "raise":
        raise KeyboardInterrupt
"""
REFUSED = """
import sys
from pathlib import Path
from cluster.deploy import remote
remote.RAY = (sys.executable, "-c", "print('no route to host'); raise SystemExit(255)")
with remote.tunnel(Path("cluster.yaml")):
    pass
"""


def open_tunnel(then: str) -> tuple[subprocess.Popen[str], list[psutil.Process]]:
    """Return the opener and its processes: a shell, the process that waits for the end, the listener and its child."""
    command = [sys.executable, "-c", OPENER, then]
    opener = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ)
    assert opener.stdout is not None
    return opener, [psutil.Process(pid) for pid in json.loads(opener.stdout.readline()) if psutil.pid_exists(pid)]


def assert_gone(opener: subprocess.Popen[str], started: list[psutil.Process]) -> None:
    try:
        opener.wait(60)
        wait_until(lambda: not any(alive(process) for process in started), 60.0, "the tunnel to end")
    finally:
        opener.kill()
        for process in started:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        opener.communicate()


def alive(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
def test_it_ends_with_a_process_that_is_ended(number: int) -> None:
    opener, started = open_tunnel("wait")
    assert len(started) >= 4 and all(alive(process) for process in started)
    opener.send_signal(number)
    assert_gone(opener, started)


@pytest.mark.parametrize("then", ["leave", "raise"])
def test_it_ends_with_its_block(then: str) -> None:
    assert_gone(*open_tunnel(then))


def test_one_that_cannot_be_opened_says_why_and_leaves_nothing() -> None:
    done = subprocess.run([sys.executable, "-c", REFUSED], capture_output=True, text=True, timeout=60)
    assert "its head cannot be reached through ssh: no route to host" in done.stderr, done.stderr


def test_node_stop_ends_what_tunnels_keep_open(tmp_path: Path) -> None:
    """Only the function is called: `node.sh stop` as root would also end a Ray of this machine."""
    script = Path(__file__).parents[2] / "cluster" / "deploy" / "node.sh"
    function = script.read_text().split("end_tunnels() {", 1)[1].split("\n}\n", 1)[0]
    shell = subprocess.Popen(["sh", "-c", "while true; do sleep 86400; done"])
    (child,) = wait_until(psutil.Process(shell.pid).children)
    subprocess.run(["bash", "-c", f"set -euo pipefail\nend_tunnels() {{{function}\n}}\nend_tunnels"], check=True)
    shell.wait(30)
    wait_until(lambda: not alive(child), 30.0, "its sleep to end")
