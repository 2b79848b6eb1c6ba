"""RAY_ADDRESS is empty, `local`, or the host:port of a cluster that answers. A refusal says which values work."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cluster.cli import main as cli
from cluster.errors import ConfigError
from cluster.preflight import ray_address
from cluster.preflight.ray_address import SETTINGS, check_answers, is_cluster
from tests.support import tiny


@pytest.mark.parametrize("address", ["", "local"])
def test_this_machine(address: str) -> None:
    assert not is_cluster(address)


@pytest.mark.parametrize("address", ["10.0.0.5:6379", "head:6379", "my-head.example.org:1", "[::1]:6379", "a_b:65535"])
def test_a_head(address: str) -> None:
    assert is_cluster(address)


WRONG = ["nonsense", "auto", "ray://10.0.0.5:10001", "http://x", "https://x:1", "10.0.0.5", ":6379", "host:", "host:0"]
NAMES = ["head..example:6379", ".:6379", f"{64 * 'a'}:6379"]  # names that no host can have


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


@contextmanager
def answering(words: bytes) -> Iterator[str]:
    """Yield the address of a port that sends these words to its first client; the words may be empty."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def say() -> None:
            connection = server.accept()[0]
            with connection:
                connection.sendall(words)
                connection.recv(1024)
                over.wait(60)

        over = threading.Event()
        thread = threading.Thread(target=say)
        thread.start()
        yield f"127.0.0.1:{server.getsockname()[1]}"
        over.set()
        thread.join()


@pytest.mark.parametrize("words", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"-ERR unknown command\r\n"])
def test_what_is_no_head_is_named(words: bytes) -> None:
    with (
        answering(words) as address,
        pytest.raises(ConfigError, match=f"{address}: what answers there is not the head"),
    ):
        check_answers(address)


@pytest.mark.parametrize("address", NAMES)
def test_a_name_that_no_host_can_have_is_named(address: str) -> None:
    with pytest.raises(ConfigError, match="no cluster answers there"):
        check_answers(address)


def test_a_head_that_says_nothing_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_address, "PATIENCE_S", 0.2)
    with answering(b"") as address, pytest.raises(ConfigError, match=r"no cluster answers there \(timed out\)"):
        check_answers(address)


def test_a_head_that_is_not_there_is_named() -> None:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        for address in (f"127.0.0.1:{one.getsockname()[1]}", "no-such-host.invalid:6379"):
            with pytest.raises(ConfigError, match=f"RAY_ADDRESS {address}: no cluster answers there .*unset it"):
                check_answers(address)


def test_a_head_is_known_by_its_greeting() -> None:
    with answering(SETTINGS) as address:
        check_answers(address)
