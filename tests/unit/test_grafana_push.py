"""Requests to a Grafana server, tested against a server that stores what it gets and answers like Grafana's API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from dashboards.grafana.boards import BOARDS
from dashboards.grafana.dashboards import SOURCE, SOURCE_NAME
from dashboards.grafana.push import PushError, push
from tests.support.live import free_port

TOKEN = "glsa_of-a-test"
PROMETHEUS = "http://prometheus:9090"


class Grafana(ThreadingHTTPServer):
    """A stand-in for Grafana. It holds folders, data sources and dashboards by uid, and every request that came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folders: dict[str, Any] = {}
        self.sources: dict[str, Any] = {}
        self.dashboards: dict[str, Any] = {}
        self.requests: list[tuple[str, str]] = []
        self.url = f"http://127.0.0.1:{self.server_port}/grafana"


class Handler(BaseHTTPRequestHandler):
    server: Grafana

    def do(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size) or "null")
        path = self.path.removeprefix("/grafana/api")
        self.server.requests.append((self.command, path))
        if self.headers["Authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"message": "Invalid API key"})
        match self.command, path.strip("/").split("/"):
            case "GET", ["folders", uid] if uid in self.server.folders:
                return self.answer(200, self.server.folders[uid])
            case "POST", ["folders"] if body["uid"] not in self.server.folders:
                self.server.folders[body["uid"]] = body
                return self.answer(200, body)
            case "GET", ["datasources", "uid", uid] if uid in self.server.sources:
                return self.answer(200, self.server.sources[uid])
            case "POST", ["datasources"] if body["name"] in [one["name"] for one in self.server.sources.values()]:
                return self.answer(409, {"message": "data source with the same name already exists"})
            case "POST", ["datasources"] if body["uid"] not in self.server.sources:
                self.server.sources[body["uid"]] = body | {"id": 7}
                return self.answer(200, body)
            case "PUT", ["datasources", "7"]:
                self.server.sources[body["uid"]] = body | {"id": 7}
                return self.answer(200, body)
            case "POST", ["dashboards", "db"] if body["overwrite"] and body["folderUid"] in self.server.folders:
                self.server.dashboards[body["dashboard"]["uid"]] = body["dashboard"]
                return self.answer(200, {"status": "success"})
        return self.answer(404, {"message": "Not found"})

    do_GET = do_POST = do_PUT = do

    def answer(self, status: int, body: Any) -> None:
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Do not print requests."""


@pytest.fixture
def grafana() -> Iterator[Grafana]:
    with Grafana() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server
        server.shutdown()


def test_everything_is_made_once_and_brought_up_to_date_after(grafana: Grafana) -> None:
    told = push(grafana.url, TOKEN, PROMETHEUS)
    assert told[:2] == ["folder BRC at scale: made", f"data source {PROMETHEUS}: made"]
    assert set(grafana.dashboards) == {board.uid for board in BOARDS}
    assert grafana.requests[:4] == [
        ("GET", "/folders/brc"),
        ("POST", "/folders"),
        ("GET", "/datasources/uid/brc-prometheus"),
        ("POST", "/datasources"),
    ]
    grafana.requests.clear()
    told = push(grafana.url, TOKEN, PROMETHEUS)
    assert told[:2] == ["folder BRC at scale: is there", f"data source {PROMETHEUS}: is there"]
    assert [one for one in grafana.requests if one[0] != "GET"] == [("POST", "/dashboards/db")] * len(BOARDS)
    grafana.sources[SOURCE]["jsonData"] = {"httpMethod": "GET"}
    told = push(grafana.url, TOKEN, "http://elsewhere:9090")
    assert told[1] == f"data source http://elsewhere:9090: changed, was {PROMETHEUS}"
    assert ("PUT", "/datasources/7") in grafana.requests and len(grafana.sources) == 1
    assert grafana.sources[SOURCE]["jsonData"] == {"httpMethod": "GET"}, "what somebody has set is left"


def test_what_somebody_else_has_is_not_touched(grafana: Grafana) -> None:
    others = {"name": "Prometheus", "uid": "prometheus", "id": 7, "url": "https://thanos"}
    grafana.sources["prometheus"] = dict(others)
    push(grafana.url, TOKEN, PROMETHEUS)
    assert grafana.sources["prometheus"] == others and grafana.sources[SOURCE]["url"] == PROMETHEUS


def test_a_name_that_is_taken_is_told(grafana: Grafana) -> None:
    grafana.sources["another"] = {"name": SOURCE_NAME, "uid": "another", "id": 8}
    with pytest.raises(PushError, match=r"refuses: .*data source with the same name already exists"):
        push(grafana.url, TOKEN, PROMETHEUS)


def test_a_wrong_token_is_told_and_nothing_is_made(grafana: Grafana) -> None:
    with pytest.raises(PushError, match="does not take GRAFANA_TOKEN"):
        push(grafana.url, "another", PROMETHEUS)
    assert not grafana.folders and not grafana.dashboards


@pytest.mark.parametrize(
    ("url", "token", "sentence"),
    [
        pytest.param(
            f"http://127.0.0.1:{free_port()}",
            TOKEN,
            "does not answer as Grafana does: ConnectionError",
            id="nobody-there",
        ),
        ("localhost:3000", TOKEN, "is not an address of Grafana, such as"),
        ("http://localhost:3000", "", "GRAFANA_TOKEN is not set"),
    ],
)
def test_what_cannot_work_is_one_sentence(url: str, token: str, sentence: str) -> None:
    with pytest.raises(PushError, match=sentence):
        push(url, token, PROMETHEUS)
