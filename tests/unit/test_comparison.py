"""The report's comparison of series: which runs and tasks are beside each other, and what a score costs."""

from __future__ import annotations

import numpy as np
import pytest

from actors.benchmarks.catalogue import all_tasks, benchmarks
from dashboards.events import Entry, LearnerReady
from dashboards.report import peers
from dashboards.report.comparison import alike, final_scores, price, table, whole
from dashboards.report.curves import Curve, Series, frames, minutes, most_frames, steps, teraflop, updates
from dashboards.report.runs import Run, merged
from dashboards.report.sections import peer_lines, run_row, task_row
from dashboards.rows import EvaluationRow
from learner.reports import Ready

TASKS = ("a", "b")


def row(at: int, scores: dict[str, float], seconds: float) -> EvaluationRow:
    found: dict[str, float | None] = dict(scores)
    return EvaluationRow(
        time=0.0,
        elapsed_s=seconds,
        env_steps=at,
        updates=2 * at,
        policy="deterministic",
        mean_return=found,
        success=dict.fromkeys(scores),
        score=found,
        score_mean=float(np.mean(list(scores.values()))),
        score_iqm=None,
        returns={task: [value] for task, value in scores.items()},
        scores={task: [value] for task, value in scores.items()},
        lengths={task: [1] for task in scores},
    )


def run(name: str, values: dict[int, dict[str, float]], seconds_a_step: float = 1.0) -> Run:
    ready = Ready(updates=0, device="cpu", precision="float32", threads=1, update_flops=10**12)
    events = [Entry(time=0.0, elapsed_s=0.0, session=0, event=LearnerReady(learner=ready))]
    rows = [row(at, scores, at * seconds_a_step) for at, scores in values.items()]
    tasks = list(next(iter(values.values())))
    return Run(name, "finished", {"tasks": tasks, "preset": "x", "seed": 0, "steps": 1}, [], rows, None, events)


def series(number: int, *runs: Run) -> Series:
    return Series(number, f"series {number}", runs)


def test_scores_of_a_task_are_beside_those_of_the_same_task() -> None:
    one = series(0, run("x", {0: {"a": 0.0, "b": 0.0}, 10: {"a": 0.2, "b": 0.8}}))
    other = series(1, run("y", {0: {"b": 0.0, "a": 0.0}, 10: {"b": 0.8, "a": 0.2}}))
    _, rows = table([one, other])
    assert rows[1]["better"][0] == 0.5
    found = final_scores(other, TASKS)
    assert found is not None and found.tolist() == [[0.2, 0.8]]
    assert alike([one, other]) == [[one, other]]
    assert alike([one, series(2, run("z", {10: {"c": 1.0}}))]) == []


def test_a_run_that_stopped_early_is_left_out() -> None:
    done = {at: {"a": at / 300, "b": at / 300} for at in (0, 100, 200, 300)}
    early = run("early", {at: {"a": 0.0, "b": 0.0} for at in (0, 100)})
    both = series(0, run("x", done), early)
    assert [one.name for one in whole(both).runs] == ["x"]
    assert price(both, 0.5, steps) is None, "the curve of both ends at 100"
    assert price(whole(both), 0.5, steps) == pytest.approx(150)


def test_the_price_of_a_score_is_the_mean_over_runs_at_the_same_steps() -> None:
    values = {at: {"a": at / 300, "b": at / 300} for at in (0, 100, 200, 300)}
    two = series(0, run("fast", values, 1.0), run("slow", values, 3.0))
    assert price(two, 0.5, steps) == pytest.approx(150)
    assert price(two, 0.5, updates) == pytest.approx(300)
    assert price(two, 0.5, minutes) == pytest.approx((150 + 450) / 2 / 60)
    assert price(two, 1.0, minutes) == pytest.approx((300 + 900) / 2 / 60)
    assert price(two, 0.5, teraflop) == pytest.approx(300)
    assert price(two, 1.1, steps) is None


def test_agents_of_a_task_each_are_one_run() -> None:
    """Distributed runs are evaluated at steps that differ by a few."""
    one = run("a", {1003: {"a": 0.1}, 2007: {"a": 0.2}, 3000: {"a": 0.3}})
    other = run("b", {1001: {"b": 0.5}, 2010: {"b": 0.6}, 3001: {"b": 0.9}})
    whole_run = merged("both", [one, other])
    assert whole_run.config["tasks"] == ["a", "b"] and whole_run.name == "both"
    assert [row.env_steps for row in whole_run.evaluations] == [1003, 2007, 3000]
    assert [row.score for row in whole_run.evaluations] == [
        {"a": 0.1, "b": 0.5},
        {"a": 0.2, "b": 0.6},
        {"a": 0.3, "b": 0.9},
    ]
    assert whole_run.evaluations[-1].updates == 2 * (3000 + 3001)
    assert whole_run.evaluations[-1].elapsed_s == 6001
    assert whole_run.evaluations[0].score_mean == pytest.approx(0.3)
    short = merged("both", [one, run("b", {1001: {"b": 0.5}})])
    assert [row.env_steps for row in short.evaluations] == [1003]


def test_published_agents_of_one_task_are_beside_a_task() -> None:
    found = peers.at("dmc/dog-run", 500_000)
    assert [peer.value for peer in found] == sorted((peer.value for peer in found), reverse=True) and len(found) == 7
    xqc = next(peer for peer in found if peer.agent == "XQC")
    assert xqc.value == pytest.approx(450.0) and xqc.action_repeat == 2
    assert peers.at("dmc/dog-run", 1e9) == [] and peers.at("metaworld/reach", 1e5) == []
    named = {task for agent in peers.document()["agents"].values() for task in agent["tasks"]}
    assert {"dmc/dog-run", "dmc/cartpole-balance", "humanoid-bench/h1-run"} <= named & set(all_tasks())


def test_published_curves_are_compared_by_frames() -> None:
    """A run that holds each action for two frames has 500,000 frames after 250,000 steps."""
    task = "dmc/dog-run"
    plain = series(0, run("x", {0: {task: 1.0}, 250_000: {task: 500.0}}))
    other = run("y", {0: {task: 1.0}, 250_000: {task: 500.0}})
    other.config["actors"] = {"action_repeat": 1, "of": {"dmc.action-repeat": 2.0, "metaworld.copies": 2.0}}
    repeated = series(0, other)
    assert (frames(other, task), frames(other, "metaworld/reach")) == (2, 1)
    assert most_frames([plain], task) == 1 and most_frames([plain, repeated], task) == 2
    for one, steps_ in ((plain, 250_000), (repeated, 500_000)):
        reached = Curve([float(steps_ // most_frames([one], task))], [500.0], [400.0], [600.0])
        found = task_row([one], task, [reached])
        assert found["peers"] == peers.at(task, steps_)
        (line, *_) = peer_lines(task, most_frames([one], task), 250_000)
        assert line.points[-1][0] * most_frames([one], task) == 1e5 * (steps_ // 100_000)
    assert run_row(repeated, other)["repeats"] == [2] and run_row(plain, plain.runs[0])["repeats"] == []


def test_agents_of_tasks_that_are_harder_elsewhere_are_marked() -> None:
    hard, plain = (peers.at(f"myosuite/myoHandReach{kind}", 400_000) for kind in ("Random", "Fixed"))
    drawn = not benchmarks()["myosuite"].caution(all_tasks()["myosuite/myoHandReachRandom"])
    assert len(hard) == len(plain) == 7
    assert {peer.easier for peer in hard} == {not drawn} and {peer.easier for peer in plain} == {False}
    assert all(0.0 <= peer.value <= 1.0 for peer in hard + plain)
    assert [peer.agent for peer in peers.at("playground/G1JoystickFlatTerrain", 4e7)][:2] == ["FlashSAC", "FastTD3"]
