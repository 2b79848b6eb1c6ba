"""`brc watch`: live pages of all runs at a local address."""

from __future__ import annotations

import json
import signal
import socket
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cluster.cli.commands import ago, state_of
from cluster.config.schema import RUNS
from cluster.errors import ConfigError
from cluster.run.registry import Registry, find_registry
from dashboards.watch.server import serve


class FoundRuns:
    """The runs of a registry whose folders are here, for the server."""

    def __init__(self, registry: Registry, runs_folder: Path) -> None:
        self.registry = registry
        self.runs_folder = runs_folder

    def names(self) -> list[str]:
        return [name for name in self.registry.names() if self.folder(name).is_dir()]

    def folder(self, name: str) -> Path:
        return self.runs_folder / name

    def said(self, name: str) -> dict[str, Any]:
        try:
            return self._said(name)
        except Exception as error:  # a damaged file of one run must not hide the others
            nothing: dict[str, Any] = {"preset": "", "line": "", "scores": [], "events": []}
            return nothing | {"name": name, "state": "unreadable", "reason": f"{type(error).__name__}: {error}"}

    def _said(self, name: str) -> dict[str, Any]:
        found = self.registry.read(name)
        events = [f"{ago(at)}: {event} {reason}" for at, event, reason in json.loads(found.events or "[]")]
        return {
            "name": name,
            "state": state_of(self.registry, name),
            "preset": found.preset,
            "reason": found.reason,
            "line": found.line,
            "scores": json.loads(found.scores or "[]"),
            "events": events[::-1],
        }

    def report(self, name: str, file: Path) -> Sequence[str]:
        words = ["report", name, "--output", str(file), "--runs-folder", str(self.runs_folder)]
        return [sys.executable, "-m", "cluster", *words]


def watch(port: int = 0, runs_folder: str = RUNS) -> int:
    """Serve live pages of all runs until Ctrl-C: a list, and for each run what it says and its report.

    Nothing but this machine can reach them: from another, forward the port through ssh.

    Args:
        port: port on 127.0.0.1; 0 takes any free port.
        runs_folder: where runs are.
    """
    folder = Path(runs_folder).absolute()
    runs = FoundRuns(find_registry(folder), folder)
    with tempfile.TemporaryDirectory(prefix="brc-watch-") as place:
        try:
            server = serve(runs, Path(place), port)
        except (OSError, OverflowError) as error:
            raise ConfigError(f"--port {port} cannot be listened on ({error}): name another, or 0 for any") from error
        with server:
            at = server.server_address[1]
            print(f"http://127.0.0.1:{at} shows all runs; Ctrl-C ends it", flush=True)
            print(f"from another machine: ssh -L {at}:127.0.0.1:{at} {socket.gethostname()}", flush=True)
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            try:
                server.serve_forever()
            except KeyboardInterrupt:
                return 130
    return 0
