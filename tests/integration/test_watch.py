"""The live pages of `brc watch`, beside a run that goes on."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from dashboards.watch.server import Reports
from tests.support import tiny
from tests.support.browser import chromium
from tests.support.live import live, wait_for, wait_until

OPTIONS = ("--execution=serial", "--steps=1000000", "--evaluation.interval=2000")


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Yield a folder with a live run `a` that has been evaluated."""
    with (
        tempfile.TemporaryDirectory(prefix="brc-", ignore_cleanup_errors=True) as path,
        live(Path(path), "a", *OPTIONS) as run,
    ):
        wait_for(run, lambda: any(row["updates"] for row in tiny.rows(Path(path), "a", "metrics")))
        yield Path(path)


@pytest.fixture(scope="module")
def watching(folder: Path) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Yield the address of the pages and the process that serves them."""
    command = tiny.command(["watch", "--runs-folder", str(folder / "runs")])
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=tiny.environment())
    try:
        assert process.stdout is not None
        found = re.search(r"http://127\.0\.0\.1:\d+", process.stdout.readline())
        assert found is not None
        yield found[0], process
    finally:
        process.kill()
        process.communicate()


def get(url: str, **headers: str) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
        body = answer.read()
        return json.loads(body) if "json" in answer.headers["Content-Type"] else body.decode()


def test_what_a_run_says_and_its_report_follow_it(folder: Path, watching: tuple[str, Any]) -> None:
    at, _ = watching
    (first,) = get(f"{at}/live")
    assert first["name"] == "a" and first["state"] == "live" and "steps" in first["line"]
    wait_until(lambda: get(f"{at}/live")[0]["line"] != first["line"], why="the line to follow the run")
    version = wait_until(lambda: get(f"{at}/live/a")["version"], why="a first report")
    assert "cartpole-swingup" in get(f"{at}/report/a")
    assert version >= 1
    said = get(f"{at}/live/a")
    assert any("start" in line for line in said["events"]), said


class Written:
    """A run in a folder, whose report is a copy of its evaluations."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def names(self) -> list[str]:
        return ["a"]

    def said(self, name: str) -> dict[str, Any]:
        return {"name": name}

    def folder(self, name: str) -> Path:
        return self.path

    def report(self, name: str, file: Path) -> list[str]:
        return ["cp", str(self.path / "eval.jsonl"), str(file)]


def test_a_report_is_made_again_when_there_is_something_new(tmp_path: Path) -> None:
    run, place = tmp_path / "a", tmp_path / "reports"
    run.mkdir()
    place.mkdir()
    reports = Reports(Written(run), place)
    (run / "eval.jsonl").write_text("first")
    wait_until(lambda: reports.newest("a").version == 1, why="a first report")
    for _ in range(3):
        assert reports.newest("a").version == 1, "nothing is new"
    (run / "eval.jsonl").write_text("second")
    os.utime(run / "eval.jsonl", (1, 1))
    report = wait_until(lambda: (one := reports.newest("a")).version == 2 and one, why="a second report")
    assert report.file.read_text() == "second"
    (run / "eval.jsonl").unlink()
    (run / "metrics.jsonl").write_text("a report that cannot be made is told of")
    wait_until(lambda: "cannot stat" in reports.newest("a").trouble, why="the trouble")
    assert reports.newest("a").version == 2 and report.file.read_text() == "second"


def test_only_this_machine_is_answered_and_only_by_its_name(watching: tuple[str, subprocess.Popen[str]]) -> None:
    at, process = watching
    listening = [one for one in psutil.Process(process.pid).net_connections("inet") if one.status == "LISTEN"]
    assert [one.laddr.ip for one in listening] == ["127.0.0.1"]
    with pytest.raises(urllib.error.HTTPError) as refused:
        get(f"{at}/live", Host="example.com:80")
    assert refused.value.code == 403
    assert get(f"{at}/live", Host="localhost:9")[0]["name"] == "a", "the other end of a forwarded port"
    for path in ("live/b", "live/a/b", "report/b", "live/..%2F..", "report/%2Fetc%2Fpasswd", "other"):
        with pytest.raises(urllib.error.HTTPError) as missing:
            get(f"{at}/{path}")
        assert missing.value.code == 404


def test_the_page_updates_itself_on_a_phone_too(watching: tuple[str, Any], tmp_path: Path) -> None:
    at, _ = watching
    with chromium() as driver:
        driver.set_window_size(400, 800)
        driver.get(at)
        wait_until(lambda: driver.find_elements("css selector", "li a"), why="the list of runs")
        driver.find_element("css selector", "li a").click()
        said = wait_until(
            lambda: "steps" in driver.find_element("id", "said").text and driver.find_element("id", "said").text
        )
        wait_until(lambda: driver.find_element("id", "said").text != said, why="the page to update itself")
        wait_until(lambda: driver.find_element("id", "report").is_displayed(), why="the report")
        driver.switch_to.frame("report")
        wait_until(lambda: driver.find_elements("css selector", "figure svg"), why="its figures")
        driver.switch_to.default_content()
        width = driver.execute_script("return document.documentElement.scrollWidth")
        assert width <= driver.execute_script("return window.innerWidth"), "nothing is beyond a phone's edge"
        assert not [line for line in driver.get_log("browser") if line["level"] == "SEVERE"]


def test_it_ends_with_ctrl_c(watching: tuple[str, subprocess.Popen[str]]) -> None:
    _, process = watching
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 130
