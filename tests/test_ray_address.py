"""RAY_ADDRESS is nothing, `local`, or host:port of a cluster that answers; all else is refused with what works."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster import cli
from cluster.errors import ConfigError
from cluster.ray_address import check_answers, is_cluster
from tests import tiny


@pytest.mark.parametrize("address", ["", "local"])
def test_this_machine(address: str) -> None:
    assert not is_cluster(address)


@pytest.mark.parametrize("address", ["10.0.0.5:6379", "head:6379", "my-head.example.org:1", "[::1]:6379", "a_b:65535"])
def test_a_head(address: str) -> None:
    assert is_cluster(address)


WRONG = ["nonsense", "auto", "ray://10.0.0.5:10001", "http://x", "https://x:1", "10.0.0.5", ":6379", "host:", "host:0"]


@pytest.mark.parametrize("address", [*WRONG, "host:99999", "a b:1", "local:1:2", "tcp://h:1", "::1:6379", "host:six"])
def test_what_leads_nowhere_is_refused_before_ray_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, address: str
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert cli.main(tiny.train_command(tmp_path, "a")[3:]) == 2
    said = capsys.readouterr().err
    assert f"RAY_ADDRESS {address}" in said or f"RAY_ADDRESS '{address}'" in said
    assert "brc remote train" in said or ("10.0.0.5:6379" in said and "unset" in said)
    assert len(said.splitlines()) == 1 and not (tmp_path / "runs").exists()


@given(st.text(max_size=20))
@example("10.0.0.5:6379\n")
def test_any_text_is_an_address_or_refused(address: str) -> None:
    try:
        leads = is_cluster(address)
    except ConfigError:
        return
    if leads:
        host, _, port = address.rpartition(":")
        assert host and 0 < int(port) < 1 << 16 and not any(letter.isspace() for letter in address)


@pytest.fixture
def silent() -> Iterator[str]:
    """The address of a port that refuses."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{one.getsockname()[1]}"


def test_a_head_that_does_not_answer_is_named(silent: str) -> None:
    for address in (silent, "no-such-host.invalid:6379"):
        with pytest.raises(ConfigError, match=f"RAY_ADDRESS {address}: no cluster answers there .*unset it"):
            check_answers(address)
