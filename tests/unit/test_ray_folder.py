"""Ray's sessions are in a folder that Ray's sockets can use, whatever TMPDIR is."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from cluster.errors import ConfigError
from cluster.preflight.ray_folder import MOST_BYTES, SOCKET, own_folder, ray_folder, unfit
from cluster.preflight.validation import validate
from tests.support import tiny

VARIABLES = ("RAY_TMPDIR", "TMPDIR")


def of_length(folder: Path, length: int) -> Path:
    """Return a path below a folder, `length` bytes long."""
    return folder / ("x" * (length - len(f"{folder}/")))


def test_the_limit_is_the_systems(folder: Path) -> None:
    for length in (MOST_BYTES, MOST_BYTES + 1):
        place = of_length(folder, length)
        path = place / SOCKET
        path.parent.mkdir(parents=True)
        with socket.socket(socket.AF_UNIX) as one:
            if length == MOST_BYTES:
                one.bind(str(path))
                assert not unfit(place)
            else:
                with pytest.raises(OSError, match="too long"):
                    one.bind(str(path))
                assert f"is {length} bytes long" in unfit(place)


def test_one_that_is_named_and_too_long_is_refused_early(folder: Path) -> None:
    named = of_length(folder, MOST_BYTES + 1)
    config = tiny.config(execution="distributed", ray_folder=str(named))
    with pytest.raises(ConfigError, match=f"--ray-folder {named}: .*{MOST_BYTES + 1} bytes.* 107.*such as /tmp"):
        validate(config)
    fitting = of_length(folder, MOST_BYTES)
    assert ray_folder(str(fitting)) == (fitting, "")
    with pytest.raises(ConfigError, match="--ray-folder /dev/null/x: /dev/null is not a folder"):
        ray_folder("/dev/null/x")
    with pytest.raises(ConfigError, match="/tmp/räy has letters that Ray does not take"):
        ray_folder("/tmp/räy")


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_long_default_is_avoided(folder: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    short = folder / "t"
    monkeypatch.setenv(variable, str(short))
    assert ray_folder("") == (short / "ray", "")
    monkeypatch.setenv(variable, str(of_length(folder, MOST_BYTES - 3)))
    found, why = ray_folder("")
    assert found == own_folder() and f"is {MOST_BYTES + 1} bytes long" in why


def test_another_users_default_is_avoided(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_TMPDIR", raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    (folder / "ray").mkdir()
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000)
    assert ray_folder("") == (own_folder(), f"{folder / 'ray'} is another user's")
    assert str(own_folder()).endswith("4000000")
