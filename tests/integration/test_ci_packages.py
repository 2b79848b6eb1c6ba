"""Tests of .ci/packages with stand-ins for Debian's programs: it installs or names packages and restores a policy."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "packages"
PROGRAMS = {
    "id": "echo ${USER_ID:-0}",
    "dpkg-query": 'grep -qx "${!#}" $THERE && echo installed',
    # Like apt-get, it installs all requested packages, or none if one is unavailable.
    "apt-get": """
      [ "$1" = install ] || exit 0
      [ "$($POLICY_RC_D; echo $?)" = 101 ] || exit 1
      [ -z "${KILLS:-}" ] || { kill -TERM $PPID; exit 1; }
      for word; do [ "$word" != "${LACKS:-}" ] || exit 100; done
      for word; do case $word in install | -*) ;; *) echo "$word" >> $THERE ;; esac; done
    """,
}


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """Return the environment variables of a Debian machine that has redis-server and curl."""
    (tmp_path / "bin").mkdir()
    for name, text in PROGRAMS.items():
        (tmp_path / "bin" / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / "bin" / name).chmod(0o755)
    (tmp_path / "there").write_text("redis-server\ncurl\n")
    return os.environ | {
        "PATH": f"{tmp_path}/bin:{os.environ['PATH']}",
        "THERE": f"{tmp_path}/there",
        "POLICY_RC_D": f"{tmp_path}/policy-rc.d",
    }


def packages(machine: dict[str, str], **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([SCRIPT], capture_output=True, text=True, env=machine | more, timeout=60)


@pytest.mark.parametrize("policy", ["#!/bin/sh\nexit 101\n", "#!/bin/sh\nexit 0\n", None])
def test_what_is_not_there_is_installed_whatever_policy_there_is(machine: dict[str, str], policy: str | None) -> None:
    file = Path(machine["POLICY_RC_D"])
    if policy is not None:
        file.write_text(policy)
        file.chmod(0o750)
    done = packages(machine)
    there = Path(machine["THERE"]).read_text().split()
    assert done.returncode == 0 and {"prometheus", "chromium", "openssh-server"} <= set(there), done.stderr
    assert len(there) == len(set(there)) and "installed: prometheus" in done.stdout and "cannot" not in done.stdout
    assert (file.read_text() if file.exists() else None) == policy
    assert policy is None or file.stat().st_mode & 0o777 == 0o750
    assert "all there: " in packages(machine).stdout


def test_one_that_cannot_be_had_is_named_and_the_others_are_installed(machine: dict[str, str]) -> None:
    done = packages(machine, LACKS="chromium")
    assert done.returncode == 0 and "cannot be had here: chromium\n" in done.stdout, done.stdout
    assert {"prometheus", "shellcheck"} <= set(Path(machine["THERE"]).read_text().split())


def test_where_nothing_can_be_installed_all_is_named(machine: dict[str, str]) -> None:
    done = packages(machine, USER_ID="1000")
    assert done.returncode == 0 and "prometheus" in done.stdout and "redis-server" not in done.stdout, done.stdout


def test_a_policy_comes_back_when_it_is_ended(machine: dict[str, str]) -> None:
    file = Path(machine["POLICY_RC_D"])
    file.write_text("mine")
    done = packages(machine, KILLS="1")
    assert done.returncode in (130, -signal.SIGTERM) and file.read_text() == "mine", done
