"""Tests of a run's metrics: all declared ones are served, counters never fall, and a failing mirror stops nothing."""

from __future__ import annotations

import itertools
import math
import re
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ray.exceptions import ActorUnavailableError, OutOfMemoryError, RayActorError, RayTaskError, RuntimeEnvSetupError

from actors.benchmarks.catalogue import resolve
from actors.causes import Cause
from actors.deaths import cause_of
from actors.door import BadNumber, OnlyBadNumbers
from dashboards.events import Begun, Failed, LearnerDied, Stopped
from dashboards.metrics.docs import page
from dashboards.metrics.exporter import Exporter
from dashboards.metrics.metrics import METRICS
from dashboards.metrics.tally import State, Tally
from dashboards.progress import bottleneck
from dashboards.report import published
from dashboards.rows import shard_row
from dashboards.sinks.records import Records, flatten, read
from tests.support import tiny
from tests.support.live import address, ended_well, live, scrape, wait_for
from tests.support.rows import entry, evaluation, row, shard_stats

# Metrics without a value in a short run of one task on a CPU.
ABSENT = {
    "brc_failed",
    "brc_restart_timestamp_seconds",
    "brc_scaled_timestamp_seconds",
    "brc_published",
    "brc_reward_scale",
    "brc_run_left_seconds",
    "brc_evaluation_success",
}


def test_declarations_follow_the_conventions_of_prometheus() -> None:
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
    for metric in METRICS:
        assert re.fullmatch(r"brc_[a-z_]+", metric.name) and metric.help.endswith(".") and metric.unit
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert not {"actor", "pid", "node", "run"}.intersection(metric.labels), "labels that nothing bounds"


def test_the_page_of_metrics_is_what_the_code_writes() -> None:
    assert (Path(__file__).parents[2] / "docs" / "metrics.md").read_text() == page(), "run `make docs`"


def test_a_live_run_answers_and_all_that_is_declared_is_there(folder: Path) -> None:
    with live(folder, "a", "--steps=8000", "--checkpoint-interval=1000", "--evaluation.interval=1000") as process:
        target = folder / "runs" / ".prometheus" / "a.json"
        wait_for(process, lambda: read(folder / "runs" / "a" / "eval.jsonl")[1:])
        wait_for(process, lambda: tiny.rows(folder, "a", "metrics")[-1]["learner"].get("critic_gradient_norm"))
        url = address(folder, "a")
        late = {"brc_checkpoint_seconds", "brc_episode_return"}
        found = wait_for(
            process,
            lambda: (
                (now := scrape(url)) and late <= now.keys() and now["brc_environment_steps_total"][0][1] > 0 and now
            ),
        )
        row = tiny.rows(folder, "a", "metrics")[-1]
        missing = {metric.name for metric in METRICS if metric.name not in found}
        assert missing <= ABSENT, missing - ABSENT
        assert {labels["run"] for samples in found.values() for labels, _ in samples if "run" in labels} == {"a"}
        ((labels, steps),) = found["brc_environment_steps_total"]
        assert labels == {"run": "a", "benchmark": "dmc", "task": "dmc/cartpole-swingup"}
        assert 0 < steps <= row["env_steps"]
        assert sum(value for _, value in found["brc_bottleneck"]) == 1
        ended_well(process)
    assert not target.exists(), "who has ended is not asked any more"


def test_a_run_that_dies_stays_a_target_and_a_resumed_one_knows_its_past(folder: Path) -> None:
    """One alert needs the missing answer of a dead run. Another needs the newest checkpoint of a resumed run."""
    options = ("--steps=100000", "--execution=serial", "--checkpoint-interval=500")
    with live(folder, "a", *options) as process:
        wait_for(process, lambda: [row for row in tiny.rows(folder, "a", "events") if row["event"] == "checkpoint"])
        url = address(folder, "a")
        assert scrape(url)["brc_run_steps"]
        process.kill()
        process.wait()
    assert address(folder, "a") == url
    written = [row["env_steps"] for row in tiny.rows(folder, "a", "events") if row["event"] == "checkpoint"]
    with live(folder, "a", *options[:2], "--checkpoint-interval=50000", "--resume") as process:
        wait_for(process, lambda: address(folder, "a") != url)
        found = wait_for(process, lambda: (now := scrape(address(folder, "a"))) and "brc_run_steps" in now and now)
        ((_, steps),) = found["brc_checkpoint_steps"]
        assert steps == written[-1]
        assert found["brc_random_return"]


def test_a_port_that_is_taken_and_a_folder_that_is_none_are_refused(folder: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = tiny.train(folder, "a", "--execution=serial", f"--metrics.port={port}")
        assert done.returncode == 2 and not (folder / "runs" / "a").exists()
        assert f"--metrics.port {port} of 127.0.0.1 cannot be listened on" in done.stderr
        done = tiny.train(
            folder, "b", "--execution=serial", f"--metrics.port={port}", "--metrics.no-serve", "--steps=400"
        )
        assert done.returncode == 0, done.stderr
    assert not (folder / "runs" / ".prometheus" / "b.json").exists()
    (folder / "file").touch()
    done = tiny.train(folder, "c", "--execution=serial", f"--metrics.targets={folder}/file")
    assert done.returncode == 2
    assert f"--metrics.targets {folder}/file: {folder}/file is not a folder that this user can write to" in done.stderr


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=30))
def test_a_counter_never_goes_back_and_misses_nothing_that_grew(values: list[int]) -> None:
    exporter = Exporter.__new__(Exporter)
    exporter.totals = {}
    shown = [exporter._total("x", (), value) for value in values]
    grown = sum(max(0, after - before) for before, after in itertools.pairwise(values))
    assert shown == sorted(shown) and shown[0] == 0 and shown[-1] == grown


def test_who_asks_is_told_of_a_failure_before_the_run_ends(tmp_path: Path) -> None:
    exporter = Exporter("a", Tally(State(10, 10, 1)), "127.0.0.1", 0, tmp_path)
    failed = entry(Failed(reason="RunFailed: an actor failed"), time=1.0)
    exporter.event(failed)
    exporter.wait_until_heard(threading.Event())  # there was no scrape, so this does not wait
    assert scrape(exporter.url)["brc_failed"] == [({"run": "a", "cause": "died"}, 1.0)]
    exporter.event(entry(Begun(how="resume"), time=2.0))
    assert "brc_failed" not in scrape(exporter.url)
    exporter.asked.appendleft(exporter.asked[0] - 60.0)  # as if scrapes came every minute
    exporter.event(failed)
    stop = threading.Event()
    stop.set()
    exporter.wait_until_heard(stop)
    waiting = threading.Thread(target=exporter.wait_until_heard, args=(threading.Event(),))
    waiting.start()
    waiting.join(timeout=0.5)
    assert waiting.is_alive()
    assert "brc_failed" in scrape(exporter.url)
    waiting.join(timeout=10)
    assert not waiting.is_alive()
    exporter.close()


def test_deaths_are_counted_from_none_and_their_time_is_told(tmp_path: Path) -> None:
    """Counters begin with 0, because Prometheus sees no growth in a series that begins with 1. The time of a death is
    served, because a scrape can miss a short mark."""
    exporter = Exporter("a", Tally(State(10, 10, 1)), "127.0.0.1", 0, tmp_path)
    before = scrape(exporter.url)["brc_restarts_total"]
    assert {value for _, value in before} == {0.0}
    exporter.event(entry(LearnerDied(cause=Cause.NODE_LOST, updates=3), time=1234.5))
    exporter.metrics(row())
    after = scrape(exporter.url)["brc_restarts_total"]
    assert len(after) == len(before)
    assert [labels for labels, value in after if value] == [{"run": "a", "part": "learner", "cause": "node lost"}]
    ((labels, when),) = scrape(exporter.url)["brc_restart_timestamp_seconds"]
    assert (labels["part"], when) == ("learner", 1234.5)
    exporter.close()


def test_series_are_bounded_by_tasks_and_shards(tmp_path: Path) -> None:
    """docs/metrics.md states the number of series with 300 tasks, 8 shards and 500 actors."""
    tasks = [f"dmc/task-{index}" for index in range(300)]
    numbers = dict.fromkeys(tasks, 1.0)
    tally = Tally(State(10, 10, 1), lambda task, steps: 1.0)
    exporter = Exporter("a", tally, "127.0.0.1", 0, tmp_path)
    found = evaluation({task: [1.0] for task in tasks}, success=numbers)
    exporter.evaluation(replace(found, policy="random"))
    exporter.evaluation(found)
    quantiles = {task: {"p10": 0.0, "p50": 0.0, "p90": 0.0} for task in tasks}
    shards = [shard_row(shard_stats(300, shard=shard)) for shard in range(8)]
    exporter.metrics(row(tasks, mean_return=numbers, success=numbers, return_quantiles=quantiles, shards=shards))
    series = sum(len(samples) for samples in scrape(exporter.url).values())
    exporter.close()
    assert not list(tmp_path.glob("*.json"))
    assert 4_600 < series < 4_750


@pytest.mark.parametrize(
    ("learner_waits", "actors_wait", "side"),
    [
        (0.0, 0.05, "balanced"),
        (0.9, 0.0, "actors"),
        (0.0, 0.9, "learner"),
        (0.6, 0.2, "actors"),
        (0.3, 0.4, "limiter"),
        (0.4, 0.3, "limiter"),
    ],
)
def test_the_bottleneck_is_who_is_waited_for(learner_waits: float, actors_wait: float, side: str) -> None:
    assert bottleneck(learner_waits, actors_wait) == side


class Broken:
    """A mirror whose service is unreachable."""

    def __init__(self) -> None:
        self.closed = threading.Event()

    def metrics(self, row: Any) -> None:
        raise ConnectionError("away")

    def close(self) -> None:
        self.closed.set()

    event = evaluation = metrics


def test_a_mirror_that_fails_is_told_once_and_left_out(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records.mirrors.append(mirror := Broken())
    records.metrics(row(env_steps=1))
    records.metrics(row(env_steps=2))
    records.close()
    assert [row["env_steps"] for row in read(tmp_path / "metrics.jsonl")] == [1, 2]
    (event,) = read(tmp_path / "events.jsonl")
    assert (event["event"], event["reason"], event["mirror"]) == ("mirror_failed", "ConnectionError: away", "Broken")
    assert mirror.closed.wait(10), "what it shows is not to be taken for news"


def test_a_row_that_was_cut_short_takes_no_other_with_it(tmp_path: Path) -> None:
    (tmp_path / "events.jsonl").write_text('{"time": 1.0, "event": "start"}\n{"event": "check')
    for event in (Begun(how="resume"), Stopped()):
        records = Records(tmp_path)
        records.event(event)
        records.close()
    assert [row["event"] for row in read(tmp_path / "events.jsonl")] == ["start", "resume", "stopped"]


def test_numbers_by_shard_are_mirrored_too() -> None:
    row = {"a": 1, "shards": [{"fill": 0.5}, {"fill": 1.0}], "of": {"x": 2.0, "name": "y"}, "scores": [1.0, 2.0]}
    assert flatten(row) == [("a", 1.0), ("shards/0/fill", 0.5), ("shards/1/fill", 1.0), ("of/x", 2.0)]


def task_error(error: Exception) -> RayTaskError:
    return RayTaskError("report", "Traceback (most recent call last)", error)


@pytest.mark.parametrize(
    ("error", "cause"),
    [
        (RayActorError(error_msg="The actor died because its node has died. Node Id: 1"), Cause.NODE_LOST),
        (ActorUnavailableError("The actor is unavailable", None), Cause.OUT_OF_REACH),
        (OutOfMemoryError("killed due to memory pressure"), Cause.OUT_OF_MEMORY),
        (task_error(ValueError("a bug")), Cause.RAISED),
        (task_error(OnlyBadNumbers(BadNumber(0, "dmc/dog-run", 0, "reward", math.nan))), Cause.BAD_NUMBERS),
        (RuntimeEnvSetupError("pip failed"), Cause.RAISED),
        (RayActorError(error_msg="The actor is dead because its worker process has died."), Cause.DIED),
    ],
)
def test_deaths_have_a_few_causes(error: Exception, cause: Cause) -> None:
    assert cause_of(error) is cause


@pytest.mark.parametrize("suite", ["dmc-hard", "metaworld-50", "hb-medium", "hb-hard"])
def test_the_paper_has_a_curve_of_every_task_of_its_suites(suite: str) -> None:
    for task in resolve((suite,)):
        curve = published.curve(task.name)
        assert curve is not None and len(curve.steps) == len(curve.mean) == len(curve.std)
        assert curve.at(curve.steps[3]) == curve.mean[3] and curve.at(curve.steps[-1] + 1) is None
        between = curve.at(37_500)
        assert between is not None and min(curve.mean[:2]) <= between <= max(curve.mean[:2])
    assert published.curve("dmc/cartpole-swingup") is None
