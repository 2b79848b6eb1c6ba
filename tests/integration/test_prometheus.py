"""Tests with Prometheus: promtool checks the configuration and rules, and a server finds and scrapes a live run."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from dashboards.grafana.boards import BOARDS
from dashboards.grafana.panels import BOTTLENECK, MARKS
from dashboards.metrics.metrics import METRICS
from tests.support import tiny
from tests.support.live import free_port, live, ray_process, wait_for

FOLDER = Path(__file__).parents[2] / "dashboards" / "prometheus"
pytestmark = pytest.mark.skipif(not shutil.which("promtool"), reason="needs Prometheus and its promtool")


def promtool(*words: str, cwd: Path = FOLDER) -> str:
    done = subprocess.run(["promtool", *words], cwd=cwd, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rules(file: str) -> list[dict[str, Any]]:
    groups = yaml.safe_load((FOLDER / file).read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def test_the_configuration_and_the_rules_are_valid() -> None:
    promtool("check", "config", "prometheus.yml")
    promtool("check", "rules", "recording.yml", "alerts.yml")


def test_every_alert_fires_when_it_should_and_only_then() -> None:
    promtool("test", "rules", "tests.yml")
    cases = yaml.safe_load((FOLDER / "tests.yml").read_text())["tests"]
    for alert in (rule["alert"] for rule in rules("alerts.yml")):
        found = [test for case in cases for test in case["alert_rule_test"] if test["alertname"] == alert]
        assert {bool(test["exp_alerts"]) for test in found} == {True, False}, (
            f"{alert} is to fire once and to be silent once"
        )


def test_a_wrong_expectation_is_noticed(tmp_path: Path) -> None:
    for file in FOLDER.iterdir():
        shutil.copy(file, tmp_path)
    alerts = tmp_path / "alerts.yml"
    alerts.write_text(alerts.read_text().replace('up{job="brc"} == 0', 'up{job="brc"} == 2'))
    with pytest.raises(AssertionError, match="BrcRunGone"):
        promtool("test", "rules", "tests.yml", cwd=tmp_path)


def test_rules_ask_only_for_what_there_is() -> None:
    known = {metric.name for metric in METRICS} | {rule["record"] for rule in rules("recording.yml")}
    for rule in [*rules("recording.yml"), *rules("alerts.yml")]:
        words = rule["expr"].replace("(", " ").replace(")", " ").replace("{", " ").replace("[", " ").split()
        asked = {word for word in words if word.startswith(("brc_", "brc:"))}
        assert asked <= known, asked - known


# Metrics that a short run without a GPU does not have: the paper's curves begin at 25,000 steps.
EMPTY = ("brc_published", "ray_node_gpus_utilization", "ray_node_gram_used")


def queries() -> list[str]:
    """Return the queries of every panel of every dashboard, with all values of its variables chosen."""
    found = []
    for board in BOARDS:
        for expression in (query for row in board.rows.values() for panel in row for query, _ in panel.queries):
            chosen = re.sub(r"\$(run|benchmark|task|node)\b", ".*", expression)
            found.append(chosen.replace("$__rate_interval", "20s").replace("$__range", "1m"))
    return found


@contextmanager
def prometheus(folder: Path) -> Iterator[Callable[[str], list[dict[str, Any]]]]:
    """Run a server with our configuration, except for paths and intervals. Yield a function that queries it."""
    for file in FOLDER.iterdir():
        shutil.copy(file, folder)
    config = yaml.safe_load((folder / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    for job, place in zip(config["scrape_configs"], ("", "ray/"), strict=True):
        job["file_sd_configs"][0] |= {"refresh_interval": "1s", "files": [f"{folder}/runs/.prometheus/{place}*.json"]}
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    options = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    command = ["prometheus", *options, f"--web.listen-address=127.0.0.1:{port}"]

    def ask(expression: str) -> list[dict[str, Any]]:
        query = urllib.parse.urlencode({"query": expression})
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/api/v1/query?{query}", timeout=10) as answer:
                found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
        except OSError:  # it is not up yet
            return []
        return found

    with (folder / "prometheus.log").open("w") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log)
    try:
        yield ask
    finally:
        server.kill()
        server.wait()


def test_a_server_finds_a_live_run_and_follows_it(folder: Path) -> None:
    with prometheus(folder) as ask:
        with live(folder, "a", "--steps=100000", "--checkpoint-interval=500", "--evaluation.interval=500") as process:
            (up,) = wait_for(process, lambda: ask('up{job="brc"} == 1'))
            assert up["metric"]["run"] == "a"
            wait_for(process, lambda: ask("increase(brc_environment_steps_total[1m]) > 100"))
            for rule in rules("recording.yml"):
                (value,) = wait_for(process, partial(ask, rule["record"]))
                assert value["metric"]["run"] == "a" and float(value["value"][1]) >= 0
            wait_for(process, lambda: ask("brc_checkpoints_total > 0"))
            ray_process(process, "ActorProcess").kill()
            scaled = tiny.run("scale", "a", "dmc=2", "--timeout=1", f"--runs-folder={folder}/runs")
            assert scaled.returncode == 0, scaled.stdout + scaled.stderr
            wait_for(process, lambda: ask("increase(brc_restarts_total[1m]) > 0"))
            for query in queries():
                if not any(name in query for name in EMPTY):
                    wait_for(process, partial(ask, query))
            for name, (query, _, _) in MARKS.items():
                marks = wait_for(process, partial(ask, query.replace("$run", ".*")))
                assert all(abs(float(mark["value"][1]) / 1000 - time.time()) < 300 for mark in marks), name
            assert not ask('ALERTS{alertstate="firing"}')
            process.kill()
            process.wait()
        with live(folder, "b", "--steps=100000", "--execution=serial") as process:
            wait_for(process, lambda: ask('up{run="a"} == 0') and ask('up{run="b"} == 1'))


# Side -> options of a run in which this side is the bottleneck.
STAGED: dict[str, list[str]] = {
    "actors": [
        "--tasks",
        "dmc/dog-run",
        "--actors.backend=dm_control",
        "--actors.copies=1",
        "--learner.updates-per-step=0.05",
    ],
    "learner": ["--learner.width=256", "--learner.updates-per-step=1"],
    # Actors may be ahead by one update only: actors and learner take turns, and each waits for the other.
    "limiter": ["--actors.copies=1", "--learner.updates-per-step=0.04", "--replay.max-ahead=25"],
}


def total(found: list[dict[str, Any]]) -> float:
    return sum(float(one["value"][1]) for one in found)


@pytest.mark.long
def test_the_overview_names_the_bottleneck_of_staged_runs(folder: Path) -> None:
    (panel,) = (panel for row in BOARDS[0].rows.values() for panel in row if panel == BOTTLENECK)
    ((query, _),) = panel.queries
    with prometheus(folder) as ask:
        for side, options in STAGED.items():
            with live(folder, side, "--steps=1000000", "--replay.capacity=200000", *options) as process:
                wait_for(process, partial(ask, f'increase(brc_updates_total{{run="{side}"}}[5s]) > 0'))
                # The values of the panel in the last 20 s, one a second.
                told = f"count_over_time(({query.replace('$run', side)})[20s:1s])"
                shown = wait_for(process, lambda: (found := ask(told)) and total(found) >= 15 and found)  # noqa: B023
                (of_side,) = [one for one in shown if one["metric"]["side"] == side]
                assert total([of_side]) > 0.8 * total(shown), (side, shown)
