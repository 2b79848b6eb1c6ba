"""Tests of serial runs: counters are exact, and runs are bit-identical for a seed and across a stop and a resume."""

from __future__ import annotations

import gzip
import io
import json
import shlex
import signal
import subprocess
import threading
from contextlib import redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from cluster.config.schema import Config
from cluster.errors import ConfigError, RunFailed
from cluster.preflight.validation import validate
from cluster.run.folder import open_run
from cluster.run.session import Session
from cluster.serial import SerialRun
from dashboards.sinks import records
from dashboards.sinks.console import Console
from tests.support import golden_vectors as golden
from tests.support import tiny
from tests.support.live import live, read_so_far, wait_for, wait_for_steps


class StopAt(threading.Event):
    """An event that is set once a run has inserted `steps` environment steps: it stops the run at a known place."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.run: SerialRun | None = None

    def is_set(self) -> bool:
        return self.run is not None and self.run.shards[0].limiter.inserts.min() >= self.steps


def run(config: Config, stop: StopAt | None = None) -> SerialRun:
    """Make a whole serial run, and keep its folder."""
    plan = validate(config)
    folder = open_run(plan, "quickstart")
    stop = stop or StopAt(1 << 60)
    names = [task.name for task in plan.tasks]
    with folder, redirect_stdout(io.StringIO()), Console(names, config.steps) as console:
        session = Session(plan, folder, console)
        made = SerialRun(plan, session, "cpu")
        stop.run = made
        made.run(stop)
        session.close()
    return made


def parameters(made: SerialRun) -> dict[str, torch.Tensor]:
    state = golden.continuous(made.learner)
    named: dict[str, torch.Tensor] = {}
    for part in ("critic", "target", "policy"):
        named |= {f"{part}.{name}": value for name, value in getattr(state, part).state_dict().items()}
    return named | {"log_temperature": state.log_temperature.detach()}


def assert_identical(one: SerialRun, other: SerialRun) -> None:
    for name, value in parameters(one).items():
        assert torch.equal(value, parameters(other)[name]), name
    mine, theirs = one.shards[0].stats(), other.shards[0].stats()
    assert mine.inserts_by_task == theirs.inserts_by_task and mine.transitions_by_task == theirs.transitions_by_task
    assert mine.limiter.samples == theirs.limiter.samples
    assert one.learner.updates == other.learner.updates
    assert one.actor.iterations == other.actor.iterations


def config(folder: Path, name: str, **changes: object) -> Config:
    return tiny.config(runs_folder=str(folder), name=name, **changes)


def test_counters_are_exact(tmp_path: Path) -> None:
    made = run(config(tmp_path, "a", tasks=("dmc/cartpole-swingup", "dmc/cheetah-run"), steps=1013))
    stats = made.shards[0].stats()
    assert stats.inserts_by_task == [1013, 1013]
    assert made.learner.updates == made.plan.total_updates == (1013 - 300) // 2
    assert stats.limiter.samples == made.learner.updates * 32
    evaluations = records.read(tmp_path / "a" / "eval.jsonl")
    assert [(row["policy"], row["env_steps"]) for row in evaluations] == [("random", 0), ("deterministic", 1013)]


def test_a_seed_decides_everything(tmp_path: Path) -> None:
    one, other = run(config(tmp_path, "a")), run(config(tmp_path, "b"))
    assert_identical(one, other)
    third = run(config(tmp_path, "c", seed=1))
    assert not torch.equal(parameters(one)["log_temperature"], parameters(third)["log_temperature"])


@pytest.mark.parametrize("stop_at", [100, 750, 1100])  # in warm-up, inside an episode, after a truncation
def test_a_resumed_run_is_bit_identical_to_an_unbroken_one(tmp_path: Path, stop_at: int) -> None:
    unbroken = run(config(tmp_path, "unbroken"))
    broken = run(config(tmp_path, "broken"), StopAt(stop_at))
    assert broken.shards[0].limiter.inserts[0] < 1500
    resumed = run(config(tmp_path, "broken", resume=True))
    assert_identical(unbroken, resumed)


@pytest.mark.parametrize("changes", [{"loss": "mse"}, {"normalize_observations": True}], ids=["mse", "normalised"])
@pytest.mark.parametrize("task", ["dmc/cartpole-swingup", "gymnasium/CartPole-v1"])
def test_other_losses_and_networks_are_resumed_exactly_too(tmp_path: Path, task: str, changes: dict[str, Any]) -> None:
    """The acting policy has the statistics of the learner."""
    learner = replace(tiny.config().learner, **changes)
    unbroken = run(config(tmp_path, "unbroken", tasks=(task,), learner=learner, steps=900))
    run(config(tmp_path, "broken", tasks=(task,), learner=learner, steps=900), StopAt(500))
    resumed = run(config(tmp_path, "broken", tasks=(task,), learner=learner, steps=900, resume=True))
    for one, other in zip(states(unbroken), states(resumed), strict=True):
        assert torch.equal(one, other)
    assert all(tensor.isfinite().all() for tensor in states(unbroken))
    means = [tensor for name, tensor in acting(unbroken).items() if name.endswith("_norm.mean")]
    assert bool(means) == learner.normalize_observations and all(mean.any() for mean in means)
    message = unbroken.learner.policy()
    assert {name for name, _ in message.layout} - {"task_embeddings"} == acting(unbroken).keys() - {"task_embeddings"}


OTHERS: dict[str, dict[str, Any]] = {
    "mlp": {"loss": "mse", "target": "min", "order": "policy-first", "gradient_clip": 1.0},
    "simba": {"conditioning": "one-hot", "normalize_observations": True},
    "simbav2": {"conditioning": "heads", "schedule": "cosine", "reward_normalizer": "return-scale"},
    "xqc": {"target": "min", "policy_interval": 3, "schedule": "linear"},
    "flash": {"target": "min", "policy_interval": 2, "order": "policy-first", "heads_loss": "mean"},
}


@pytest.mark.parametrize("network", OTHERS)
def test_every_network_and_what_goes_with_it_is_resumed_exactly(tmp_path: Path, network: str) -> None:
    """Running statistics, schedules and the updates between two of a policy go on where they were."""
    learner = replace(tiny.config().learner, network=network, **OTHERS[network])
    unbroken = run(config(tmp_path, "unbroken", learner=learner, steps=900))
    run(config(tmp_path, "broken", learner=learner, steps=900), StopAt(500))
    resumed = run(config(tmp_path, "broken", learner=learner, steps=900, resume=True))
    assert_identical(unbroken, resumed)
    assert all(tensor.isfinite().all() for tensor in states(unbroken))


def states(made: SerialRun) -> list[torch.Tensor]:
    return [tensor for module in made.learner.state.modules().values() for tensor in module.state_dict().values()]


def acting(made: SerialRun) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = made.learner.acting().state_dict()
    return found


def test_a_run_stopped_before_its_last_score_can_go_on_to_it(tmp_path: Path) -> None:
    whole = run(config(tmp_path, "a"))
    scores = tmp_path / "a" / "eval.jsonl"
    lines = scores.read_text().splitlines(keepends=True)
    scores.write_text(lines[0])
    resumed = run(config(tmp_path, "a", resume=True))
    assert_identical(whole, resumed)
    again = [json.loads(line) for line in scores.read_text().splitlines()]
    assert [row["policy"] for row in again] == ["random", "deterministic"]
    assert again[-1]["returns"] == json.loads(lines[-1])["returns"]
    with pytest.raises(ConfigError, match="has done 1500 already"):
        run(config(tmp_path, "a", resume=True))


def test_a_finished_run_takes_more_steps(tmp_path: Path) -> None:
    run(config(tmp_path, "a", steps=1000))
    more = run(config(tmp_path, "a", steps=1500, resume=True))
    assert more.shards[0].stats().inserts_by_task == [1500]
    assert more.learner.updates == more.plan.total_updates == 600


def test_checkpoints_and_snapshots_may_share_a_place(tmp_path: Path) -> None:
    base, place = tiny.config(), str(tmp_path / "place")
    shared = {
        "learner": replace(base.learner, checkpoints=place),
        "replay": replace(base.replay, snapshots=f"file://{place}"),
        "checkpoint_interval": 300,
    }
    unbroken = run(config(tmp_path, "unbroken"))
    run(config(tmp_path, "a", **shared), StopAt(750))
    assert_identical(unbroken, run(config(tmp_path, "a", resume=True, **shared)))


def test_a_resumed_run_counts_its_episodes_and_hours_on(tmp_path: Path) -> None:
    run(config(tmp_path, "a", steps=4100), StopAt(2100))
    run(config(tmp_path, "a", steps=4100, resume=True))
    rows = records.read(tmp_path / "a" / "metrics.jsonl")
    assert rows[-1]["episodes"] == {"dmc/cartpole-swingup": 4}  # 2 copies of 2050 steps; 2 episodes before the stop
    elapsed = [row["elapsed_s"] for row in rows]
    assert elapsed == sorted(elapsed)


def test_checkpoints_on_the_way_do_not_change_the_run(tmp_path: Path) -> None:
    plain = run(config(tmp_path, "plain"))
    checkpointed = run(config(tmp_path, "checkpointed", checkpoint_interval=300))
    assert_identical(plain, checkpointed)
    assert len(list((tmp_path / "checkpointed" / "checkpoints").iterdir())) == 2


def test_a_trace_shows_the_updates_that_were_asked_for(tmp_path: Path) -> None:
    base = tiny.config()
    run(config(tmp_path, "a", steps=400, learner=replace(base.learner, profile=5)))
    with gzip.open(tmp_path / "a" / "learner-trace.json.gz", "rt") as file:
        names = [event.get("name", "") for event in json.load(file)["traceEvents"]]
    assert names.count("aten::_fused_adamw_") >= 3 * 5, "of critic, policy and temperature"


def test_two_shards_hold_the_ratio_exactly(tmp_path: Path) -> None:
    base = tiny.config()
    made = run(config(tmp_path, "two", replay=replace(base.replay, shards=2), steps=1001, checkpoint_interval=1))
    kinds = [row["event"] for row in records.read(tmp_path / "two" / "events.jsonl")]
    assert len(kinds) > 10 and set(kinds) == {"learner_ready", "checkpoint"}, "also while a push is split between them"
    assert sum(shard.stats().inserts_by_task[0] for shard in made.shards) == 1001
    assert made.learner.updates == made.plan.total_updates
    assert sum(shard.stats().limiter.samples for shard in made.shards) == made.learner.updates * 32


def test_dm_control_backend_trains(tmp_path: Path) -> None:
    base = tiny.config()
    made = run(config(tmp_path, "d", actors=replace(base.actors, backend="dm_control"), steps=400))
    assert made.learner.updates == 50


def test_a_full_disk_costs_checkpoints_and_says_so(tmp_path: Path) -> None:
    """Files cannot grow beyond 60 kB, as on a full disk. The run trains on, and ends with exit code 1."""
    train = tiny.train_command(tmp_path, "a", "--execution=serial", "--steps=900", "--checkpoint-interval=400")
    limited = f"ulimit -f 60; exec {shlex.join(train)}"
    done = subprocess.run(["bash", "-c", limited], capture_output=True, text=True, timeout=240)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "checkpoint at 4" in done.stdout and "its last checkpoint could not be written" in done.stdout
    assert [row["event"] for row in tiny.rows(tmp_path, "a", "events")][-2:] == ["checkpoint_failed", "failed"]
    assert tiny.rows(tmp_path, "a", "metrics")[-1]["env_steps"] == 900
    assert not list((tmp_path / "runs" / "a" / "checkpoints").iterdir()), "what could not be finished takes no space"


FAULTY = "gymnasium/tests.support.odd_envs_evaluator:Faulty-v0"


class FailAt(StopAt):
    """An event that is never set, and makes environments of this process fail once a run has inserted `steps` steps."""

    def __init__(self, steps: int, file: Path) -> None:
        super().__init__(steps)
        self.file = file

    def is_set(self) -> bool:
        if super().is_set():
            self.file.touch()
        return False


def test_a_failing_environment_leaves_a_checkpoint_that_goes_on_exactly(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run without an earlier checkpoint leaves one too. The resumed run makes the failed step again."""
    monkeypatch.setenv("FAULTS", str(tmp_path / "faults"))
    (tmp_path / "faults").mkdir()
    unbroken = run(config(tmp_path, "unbroken", tasks=(FAULTY, "dmc/cartpole-swingup")))
    broken = config(tmp_path, "broken", tasks=(FAULTY, "dmc/cartpole-swingup"))
    with pytest.raises(RunFailed, match=r"an environment failed:(.|\n)*ZeroDivisionError"):
        run(broken, FailAt(753, tmp_path / "faults" / "once-step-python"))
    assert_identical(unbroken, run(replace(broken, resume=True)))


def test_a_serial_run_goes_on_without_evaluations_that_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lost evaluation is repeated with the same returns. It does not change what is learned."""
    monkeypatch.setenv("FAULTS", str(tmp_path / "faults"))
    (tmp_path / "faults").mkdir()
    wanted = {"tasks": (FAULTY,), "steps": 600}
    whole = run(config(tmp_path, "whole", **wanted))
    (tmp_path / "faults" / "once-step-python").touch()
    assert_identical(whole, run(config(tmp_path, "once", **wanted)))
    scores = [records.read(tmp_path / name / "eval.jsonl") for name in ("whole", "once")]
    assert [row["returns"] for row in scores[0]] == [row["returns"] for row in scores[1]]
    kinds = [row["event"] for row in records.read(tmp_path / "once" / "events.jsonl")]
    assert kinds == ["learner_ready", "evaluator_died", "checkpoint"]


@pytest.mark.parametrize("obeys", [True, False])
def test_a_thread_of_an_environment_does_not_hold_a_run_that_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, obeys: bool
) -> None:
    """The environment's `close` either ends the thread, or leaves it running and hangs in the end."""
    task = f"gymnasium/tests.support.odd_envs_actions:Threaded_{obeys}-v0"
    monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
    done = tiny.train(tmp_path, "a", f"--tasks={task}", "--execution=serial", "--steps=400")
    noted = (tmp_path / "noted").read_text().split()
    assert noted.count("made") > 2 and noted.count("closed") == (noted.count("made") if obeys else 0)
    assert done.returncode == 0 and "400 steps of each task" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize("signals", [1, 2])
def test_a_serial_run_in_a_hanging_environment_ends_with_the_second_ctrl_c(
    folder: Path, monkeypatch: pytest.MonkeyPatch, signals: int
) -> None:
    """The first Ctrl-C is enough if the environment returns from its step."""
    monkeypatch.setenv("FAULTS", str(folder / "faults"))
    (folder / "faults").mkdir()
    options = (f"--tasks={FAULTY}", "--execution=serial", "--steps=1000000")
    with live(folder, "a", *options) as process:
        wait_for_steps(process, folder, "a", 400)
        if signals == 2:
            (folder / "faults" / "hang-step-python").touch()
            wait_for(process, (folder / "hung").exists)
            process.send_signal(signal.SIGINT)
            wait_for(process, lambda: "stopping" in read_so_far(process))
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=75)
    assert process.returncode == 130, said
    assert "a: stopped" in tiny.run("status", "a", f"--runs-folder={folder}/runs").stdout
    assert bool(list((folder / "runs" / "a" / "checkpoints").glob("*"))) == (signals == 1)
