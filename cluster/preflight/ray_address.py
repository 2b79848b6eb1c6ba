"""Checks RAY_ADDRESS: empty or `local` for this machine, or host:port of a cluster's head."""

from __future__ import annotations

import os
import re
import socket

from cluster.errors import ConfigError

PATIENCE_S = 10.0
SETTINGS = bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])  # Ray speaks HTTP/2: each side begins with a frame of this type
GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SETTINGS
ADDRESS = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%a-z]+\]):([0-9]{1,5})")
WAY_OUT = "name host:port of the cluster's head, such as 10.0.0.5:6379, or unset it to train on this machine"


def is_cluster(address: str) -> bool:
    """Whether the address is that of a cluster. Raises ConfigError for an address that Ray cannot train with."""
    if address in ("", "local"):
        return False
    if address.startswith(("http://", "https://")):
        raise ConfigError(f"RAY_ADDRESS {address} is where jobs are sent: use `brc remote train`, as make does")
    if address == "auto":
        raise ConfigError(f"RAY_ADDRESS auto leaves it to Ray which cluster that is: {WAY_OUT}")
    if "://" in address:
        raise ConfigError(f"RAY_ADDRESS {address} is for Ray's client, which cannot start a run: {WAY_OUT}")
    found = ADDRESS.fullmatch(address)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        raise ConfigError(f"RAY_ADDRESS {address!r} is not an address: {WAY_OUT}")
    return True


def check_answers(address: str) -> None:
    """Raise ConfigError when no head of a cluster answers at the address. Ray itself would retry for minutes."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE_S) as connection:
            if os.environ.get("RAY_USE_TLS", "0") == "1":
                return  # the encrypted answer cannot be read here
            connection.sendall(GREETING)
            answer = connection.recv(len(SETTINGS))
    except (OSError, UnicodeError) as error:  # UnicodeError: no host can have this name
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(f"RAY_ADDRESS {address}: no cluster answers there ({reason}): {WAY_OUT}") from error
    if answer[3:4] != SETTINGS[3:4]:
        raise ConfigError(f"RAY_ADDRESS {address}: what answers there is not the head of a cluster: {WAY_OUT}")
