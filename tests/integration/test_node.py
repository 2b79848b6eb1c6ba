"""Tests of node.sh: it starts nothing without its secrets, restarts a killed process, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from tests.support.live import free_port, wait_until

SCRIPT = Path(__file__).parents[2] / "cluster" / "deploy" / "node.sh"


def node(home: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("BRC_", "RAY_"))}
    return subprocess.run(
        [str(SCRIPT), *arguments], capture_output=True, text=True, env=kept | {"HOME": str(home)} | variables
    )


@pytest.mark.parametrize(
    ("arguments", "files", "complaint"),
    [
        (["head"], {}, "there is no token in {home}/.ray/auth_token"),
        (["head"], {".ray/auth_token": "x"}, "there is no Redis password in {home}/.brc/redis_password"),
        (["worker", "10.0.0.1"], {}, "there is no token in {home}/.ray/auth_token"),
        (["worker"], {".ray/auth_token": "x"}, "name the head: node.sh worker HEAD_IP"),
        (["redis"], {}, "there is no Redis password in {home}/.brc/redis_password"),
    ],
)
def test_without_its_secrets_nothing_is_started(
    tmp_path: Path, arguments: list[str], files: dict[str, str], complaint: str
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    done = node(tmp_path, *arguments)
    assert done.returncode == 2 and complaint.format(home=tmp_path) in done.stderr, done.stderr
    assert not list(tmp_path.glob(".brc/*.pid"))


def servers(keeper: psutil.Process) -> list[psutil.Process]:
    """Return the living Redis servers of a keeper. Its other children may end while this looks at them."""
    found = []
    for one in keeper.children():
        with suppress(psutil.NoSuchProcess):
            found += [one] if "redis-server" in one.name() else []
    return found


def test_what_it_keeps_comes_back_when_it_is_killed_and_not_when_it_is_ended(tmp_path: Path) -> None:
    """Without systemd, a killed Redis is restarted, and Redis ends with its keeper."""
    if Path("/run/systemd/system").exists():
        pytest.skip("needs a machine without systemd")
    if shutil.which("redis-server") is None:
        pytest.skip("needs redis-server")
    options = {"BRC_REDIS": f"127.0.0.1:{free_port()}", "BRC_REDIS_PASSWORD": "a-password"}
    try:
        assert node(tmp_path, "redis", **options).returncode == 0
        keeper = psutil.Process(int((tmp_path / ".brc" / "redis.pid").read_text()))
        (server,) = servers(keeper)
        assert node(tmp_path, "redis", **options).returncode == 0
        assert server.is_running() and keeper.is_running()  # a second start changes nothing
        server.kill()
        (again,) = wait_until(lambda: [one for one in servers(keeper) if one != server])
        for file in (tmp_path / ".brc").rglob("*"):
            if file.is_file() and "a-password" in file.read_bytes().decode(errors="replace"):
                assert file.stat().st_mode & 0o77 == 0, file
    finally:
        keeper.terminate()
        keeper.wait(30)
    wait_until(lambda: not again.is_running())
