"""A server of live pages on loopback: what runs say now, and their reports, which are made anew as runs go on.

A report is made by a command in a process of its own, when somebody looks and there is something new. It is made again
after SHARE times the time that it took, so that looking costs little of a core; a new evaluation is shown sooner.
"""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from replay.json_text import json_text

PAGE = Path(__file__).parent / "page.html"
SHARE = 100  # a report is made again after so many times its own time
SOON = 50  # likewise, if there is a new evaluation
FILES = ("events.jsonl", "metrics.jsonl", "eval.jsonl")
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
)
POLICY += "frame-src 'self'; frame-ancestors 'self'"


class Runs(Protocol):
    """What the server asks about runs."""

    def names(self) -> list[str]:
        """Return the names of all runs."""

    def said(self, name: str) -> dict[str, Any]:
        """Return name, state, preset, reason, line, scores and events of a run, as texts and lists of texts."""

    def folder(self, name: str) -> Path:
        """Return the folder of a run."""

    def report(self, name: str, file: Path) -> Sequence[str]:
        """Return the command that writes a run's report to a file."""


@dataclass
class Report:
    """The report of a run, in a file. `version` counts how often it was made."""

    file: Path
    version: int = 0
    of: tuple[float, ...] = ()  # times of the files that it was made of
    made_at: float = 0.0
    took_s: float = 0.0
    trouble: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)  # held while it is made


class Reports:
    """The reports of runs, in files of a folder."""

    def __init__(self, runs: Runs, place: Path) -> None:
        self.runs = runs
        self.place = place
        self.known: dict[str, Report] = {}
        self.lock = threading.Lock()

    def newest(self, name: str) -> Report:
        """Return a run's report. Begin to make it anew if that is due."""
        folder = self.runs.folder(name)
        own = f"{name} {folder.stat().st_ino}"  # another run may get the name of one that was deleted
        with self.lock:
            report = self.known.setdefault(own, Report(self.place / f"{len(self.known)}.html"))
        of = tuple(os.path.getmtime(folder / file) if (folder / file).exists() else 0.0 for file in FILES)
        wait = (SOON if of[-1:] != report.of[-1:] else SHARE) * report.took_s
        is_due = of != report.of and time.monotonic() - report.made_at >= wait
        if is_due and report.lock.acquire(blocking=False):
            threading.Thread(target=self._make, args=(name, report, of), daemon=True).start()
        return report

    def _make(self, name: str, report: Report, of: tuple[float, ...]) -> None:
        try:
            begun = time.monotonic()
            command = ["nice", "-n", "10", *self.runs.report(name, report.file)]
            done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
            report.took_s, report.made_at, report.of = time.monotonic() - begun, time.monotonic(), of
            report.trouble = done.stderr.strip().rpartition("\n")[-1] if done.returncode else ""
            report.version += not done.returncode
        finally:
            report.lock.release()


def serve(runs: Runs, place: Path, port: int) -> ThreadingHTTPServer:
    """Return a server at a port of 127.0.0.1, any free one for 0. Raises OSError if it cannot listen there."""
    reports = Reports(runs, place)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, runs, reports)

        def log_message(self, *_: Any) -> None:
            """Say nothing: the console is the user's."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    return server


def answer(request: BaseHTTPRequestHandler, runs: Runs, reports: Reports) -> None:
    """Answer a request. One that names another host is refused: a page elsewhere may have made a name lead here."""
    host = request.headers.get("Host", "").rpartition(":")[0] or request.headers.get("Host", "")
    if host not in LOOPBACK:
        send(request, 403, "text/plain", b"only by the name localhost")
        return
    what, _, rest = urlsplit(request.path).path.lstrip("/").partition("/")
    if what in ("", "run"):
        send(request, 200, "text/html", PAGE.read_bytes())
        return
    try:
        code, kind, body = found(what, unquote(rest), runs, reports)
    except Exception as error:  # a run that is being deleted, or a registry that is away
        code, kind, body = 503, "application/json", json_text({"error": f"{type(error).__name__}: {error}"}).encode()
    send(request, code, kind, body)


def found(what: str, name: str, runs: Runs, reports: Reports) -> tuple[int, str, bytes]:
    """Return status, type and content of an answer about runs, or about one."""
    if name and name not in runs.names():
        return failed(f"there is no run {name!r}")
    if what == "live" and not name:
        return 200, "application/json", json_text([runs.said(one) for one in runs.names()]).encode()
    if what not in ("live", "report") or not name:
        return failed("there is no such page")
    report = reports.newest(name)
    if what == "report":
        return (200, "text/html", report.file.read_bytes()) if report.version else failed("there is no report yet")
    said = runs.said(name)
    answer = said | {"version": report.version, "reason": said["reason"] or report.trouble}
    return 200, "application/json", json_text(answer).encode()


def failed(why: str) -> tuple[int, str, bytes]:
    return 404, "application/json", json_text({"error": why}).encode()


def send(request: BaseHTTPRequestHandler, code: int, kind: str, body: bytes) -> None:
    request.send_response(code)
    headers = {"Content-Type": f"{kind}; charset=utf-8", "Content-Length": str(len(body)), "Cache-Control": "no-store"}
    headers |= {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
    for key, value in headers.items():
        request.send_header(key, value)
    request.end_headers()
    request.wfile.write(body)
