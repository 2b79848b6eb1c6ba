"""Tests of the measurement before a run (precision, threads): it leaves no trace, and runs in lock step skip it."""

from __future__ import annotations

import json
import multiprocessing
import os
import socket
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cluster.plan.learner_plan import learner_spec
from cluster.preflight.validation import validate
from learner.learner import Learner, settled
from learner.scale import sharding
from learner.scale.crew import Crew
from learner.scale.precision import fastest, multiplies_bfloat16
from learner.scale.tuning import BUDGET_S, Way, agreed, choose, in_turns, is_measured, ways
from learner.spec import ALONE, LearnerSpec, Ranks
from learner.state import dcp
from tests.integration.test_crew import batches, spec
from tests.integration.test_serial import StopAt, assert_identical, config, run
from tests.support import tiny

CHOICES = [Way(precision, threads) for precision in ("float32", "bf16") for threads in (1, 2, 4)]
OPEN = ["--learner.threads=0", "--learner.precision=auto"]


@given(costs=st.lists(st.floats(1e-3, 3.0), min_size=6, max_size=6), busy=st.integers(0, 8))
def test_the_way_that_takes_least_is_taken(costs: list[float], busy: int) -> None:
    """The fastest way is taken even if the machine was busy for a round, with all ways ten times as slow."""
    turns = dict.fromkeys(CHOICES, 0)

    def updates(way: Way) -> tuple[float, int]:
        turns[way] += 1
        slow = 10.0 if turns[way] == busy else 1.0
        return 3 * slow * costs[CHOICES.index(way)], 3

    found = in_turns(CHOICES, updates)
    assert costs[CHOICES.index(min(found, key=lambda way: found[way]))] == min(costs)


@given(costs=st.lists(st.floats(1e-3, 60.0), min_size=6, max_size=6))
def test_a_measurement_ends(costs: list[float]) -> None:
    """Each way has at least two turns, the first for warm-up. There is no third round when time is up."""
    spent = 0.0

    def updates(way: Way) -> tuple[float, int]:
        nonlocal spent
        spent += costs[CHOICES.index(way)]
        return costs[CHOICES.index(way)], 1

    in_turns(CHOICES, updates)
    assert spent <= 2 * sum(costs) + BUDGET_S + sum(costs) * (2 * sum(costs) <= BUDGET_S)


def test_parameters_do_not_know_of_a_measurement() -> None:
    open_spec = spec(precision="auto", threads=2, tuned=True)
    torch.manual_seed(3)
    before = torch.get_rng_state()
    chosen, costs = choose(open_spec, ALONE)
    assert torch.equal(torch.get_rng_state(), before)
    assert set(costs) == set(ways(open_spec))
    best = min(costs, key=lambda way: costs[way])
    assert (chosen.config.precision, chosen.config.threads) == (best.precision, best.threads)
    measured = Learner(chosen)
    plain = Learner(spec(precision=chosen.config.precision, threads=chosen.config.threads))
    for learner in (measured, plain):
        learner.train(batches(0))
    for part, tensors in plain.tensors().items():
        torch.testing.assert_close(measured.tensors()[part], tensors, rtol=0, atol=0)
    assert torch.equal(measured.generator.get_state(), plain.generator.get_state())


@pytest.mark.parametrize(
    "changes",
    [
        {"threads": 1, "precision": "float32", "tuned": True},  # nothing to choose
        {"threads": 8, "precision": "float32"},
        {"device": "cuda", "precision": "auto"},
        {"networks": replace(spec().networks, width=4096), "precision": "auto", "tuned": True, "threads": 8},
        {"batch_size": 1 << 20, "precision": "auto", "tuned": True, "threads": 8},
        {"networks": replace(spec().networks, num_actions=(3,), image=(4, 84, 84)), "tuned": True, "threads": 8},
    ],
)
def test_what_is_not_measured(changes: dict[str, Any]) -> None:
    assert not is_measured(spec(**changes))


@pytest.mark.parametrize(("width", "wide"), [(16, False), (255, False), (256, True), (4096, True)])
def test_bfloat16_by_rule_only_where_it_is_faster(width: int, wide: bool) -> None:
    expected = "bf16" if wide and multiplies_bfloat16("cpu") else "float32"
    assert fastest("cpu", width) == expected
    assert settled(spec(precision="auto", networks=replace(spec().networks, width=width))).config.precision == expected


def serial(folder: Path, name: str, **changes: Any) -> Any:
    learner = replace(tiny.config().learner, threads=0, **changes)
    return config(folder, name, learner=learner, steps=400)


def test_lock_step_measures_nothing(tmp_path: Path) -> None:
    plan = validate(serial(tmp_path, "a"))
    assert not learner_spec(plan, "cpu").tuned
    one, other = run(serial(tmp_path, "a")), run(serial(tmp_path, "b"))
    assert_identical(one, other)
    assert (one.learner.spec.config.precision, one.learner.spec.config.threads) == ("float32", os.cpu_count())
    (ready,) = [row for row in events(tmp_path / "a") if row["event"] == "learner_ready"]
    assert (ready["precision"], ready["threads"], ready["measured"]) == ("float32", os.cpu_count(), [])


def test_a_resumed_run_keeps_its_precision(tmp_path: Path) -> None:
    """A resumed run keeps a precision that the rule, or a measurement on another machine, would not choose now."""
    begun = run(serial(tmp_path, "a", precision="bf16"), StopAt(350))
    assert begun.learner.updates > 0
    resumed = run(replace(serial(tmp_path, "a", precision="auto"), resume=True))
    assert resumed.learner.spec.config.precision == "bf16"
    assert resumed.learner.updates > begun.learner.updates


def test_a_named_precision_is_taken_whatever_was_saved(tmp_path: Path) -> None:
    url = str(tmp_path / "saved")
    Crew(Learner(spec(precision="bf16"))).save(url).result()
    assert dcp.continued(spec(precision="auto"), url).config.precision == "bf16"
    assert dcp.continued(spec(precision="float64"), url).config.precision == "float64"


def member(rank: int, port: int, folder: Path) -> None:
    """Run one of two ranks. They measure different costs and choose alike, and rank 1 follows rank 0."""
    ranks = Ranks(rank, 2)
    sharding.join(ranks, sharding.meet(ranks, "127.0.0.1", port), "cpu", timeout_s=60)
    tables: list[dict[Way, float]] = [
        {Way("float32", 1): 3.0, Way("float32", 2): 1.0, Way("bf16", 2): 0.5},
        {Way("float32", 1): 3.5, Way("float32", 2): 4.0},
    ]
    costs = agreed(tables[rank], ranks)
    none_common: list[dict[Way, float]] = [{Way("bf16", 2): 0.0}, {Way("float32", 2): 0.0}]
    chosen, _ = choose(spec(precision="auto", threads=2, tuned=True), ranks)
    found = [
        [(way.precision, way.threads, cost) for way, cost in costs.items()],
        [way.precision for way in agreed(none_common[rank], ranks)],
        [chosen.config.precision, chosen.config.threads],
    ]
    crew = Crew(Learner(chosen.changed(threads=2), ranks))
    if rank == 0:
        crew.use_threads(1)
        crew.train(batches(0), 0, False, lambda: None).finish()
    else:
        with suppress(RuntimeError):  # rank 0 exits when it is done
            crew.follow()
    (folder / f"{rank}.json").write_text(json.dumps([*found, torch.get_num_threads()]))
    os._exit(0)  # a normal exit may abort: the process group still has threads


def test_ranks_agree(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    members = [context.Process(target=member, args=(rank, port, tmp_path)) for rank in range(2)]
    for process in members:
        process.start()
    for process in members:
        process.join(timeout=120)
        process.kill()
    one, other = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert one == other
    assert one[:2] == [[["float32", 1, 3.5], ["float32", 2, 4.0]], ["bf16"]]
    assert one[3] == 1


def events(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]


def open_ways(precision: str) -> list[Way]:
    base: LearnerSpec = spec(precision=precision, threads=os.cpu_count(), tuned=True)
    return ways(base)


def test_a_run_tells_what_it_chose_and_a_resumed_one_keeps_it(folder: Path) -> None:
    first = tiny.train(folder, "a", *OPEN, "--steps=400")
    assert first.returncode == 0, first.stdout + first.stderr
    (ready,) = [row for row in events(folder / "runs" / "a") if row["event"] == "learner_ready"]
    measured = {Way(row["precision"], row["threads"]): row["seconds"] for row in ready["measured"]}
    if len(open_ways("auto")) > 1:
        assert set(measured) == set(open_ways("auto"))
        best = min(measured, key=lambda way: measured[way])
        assert (ready["precision"], ready["threads"]) == (best.precision, best.threads)
    number = f"{ready['threads']} thread{'s' if ready['threads'] > 1 else ''}"
    assert f"updates in {ready['precision']} on {number}" in first.stdout
    cores = range(1, (os.cpu_count() or 1) + 1)
    assert all(row["learner_threads"] in cores for row in tiny.rows(folder, "a", "metrics"))
    again = tiny.train(folder, "a", *OPEN, "--steps=500", "--resume")
    assert again.returncode == 0, again.stdout + again.stderr
    second = [row for row in events(folder / "runs" / "a") if row["event"] == "learner_ready"][-1]
    assert second["precision"] == ready["precision"]
    assert {row["precision"] for row in second["measured"]} <= {ready["precision"]}
