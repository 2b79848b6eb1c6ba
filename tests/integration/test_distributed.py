"""Tests of small distributed runs: `brc train` and its Ray processes, with faults injected into them."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.support import tiny
from tests.support.live import (
    PATIENCE_S,
    assert_whole,
    command_line,
    ended_well,
    events,
    live,
    ray_process,
    read_so_far,
    relatives,
    wait_for,
    wait_for_steps,
)

TWO_TASKS = ["--tasks", "dmc/cartpole-swingup", "dmc/cheetah-run"]


def test_a_run_ends_at_its_budget_and_tells_everything(folder: Path) -> None:
    done = tiny.train(folder, "a", *TWO_TASKS, "--steps=2300", "--replay.shards=2", "--actors.count=2")
    assert done.returncode == 0, done.stdout + done.stderr
    last = assert_whole(folder, "a", 2300, tasks=2)
    run = folder / "runs" / "a"
    assert "dmc/cheetah-run" in (run / "report.html").read_text()
    assert list((run / "tensorboard").iterdir())
    assert last["bottleneck"] in ("actors", "learner", "limiter", "balanced")
    for part in ("dmc/cartpole-swingup", "dmc/cheetah-run", "samples per insert", "report.html"):
        assert part in done.stdout
    policies = [row["policy"] for row in tiny.rows(folder, "a", "eval")]
    assert policies == ["random", "deterministic"]


def test_ctrl_c_checkpoints_and_a_resume_ends_with_the_counters_of_an_unbroken_run(folder: Path) -> None:
    with live(folder, "a", "--steps=4000") as process:
        wait_for_steps(process, folder, "a", 1500)
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130, output
    assert "brc resume" in output
    stopped = tiny.manifest(folder, "a")
    assert 1500 <= stopped["env_steps"] < 4000
    with live(folder, "a", "--steps=4000", "--resume") as process:
        ended_well(process)
    assert_whole(folder, "a", 4000)
    first_after = next(
        row for row in tiny.rows(folder, "a", "metrics") if row["time"] > events(folder, "a", "resume")[0]["time"]
    )
    assert first_after["updates"] >= stopped["updates"]


def test_a_second_ctrl_c_stops_at_once_and_leaves_no_process(folder: Path) -> None:
    with live(folder, "a", "--steps=100000") as process:
        wait_for_steps(process, folder, "a", 1000)
        ours = relatives(process.pid)
        assert len(ours) > 5
        process.send_signal(signal.SIGINT)
        wait_for(process, lambda: "stopping" in read_so_far(process))
        process.send_signal(signal.SIGINT)
        process.wait(timeout=PATIENCE_S)
        assert process.returncode == 130
        _, alive = psutil.wait_procs(ours, timeout=60)
        assert not alive, [command_line(p) for p in alive]
    # The run's lock is released and its files are whole. It counts as stopped, not as died.
    status = tiny.command(["status", "a", f"--runs-folder={folder}/runs"])
    done = subprocess.run(status, capture_output=True, text=True, timeout=60)
    assert "a: stopped" in done.stdout, done.stdout + done.stderr


def test_a_killed_actor_is_replaced_and_the_run_ends_as_if_nothing_had_been(folder: Path) -> None:
    with live(folder, "a", "--steps=4000") as process:
        before = wait_for_steps(process, folder, "a", 1000)
        ray_process(process, "ActorProcess").kill()
        died = wait_for(process, lambda: events(folder, "a", "actor_died"))[0]
        back = wait_for(process, lambda: [e for e in events(folder, "a", "actor_started") if e["incarnation"] == 1])[0]
        after = wait_for_steps(process, folder, "a", before["env_steps"] + 1000)
        ended_well(process)
    assert after["updates"] >= before["updates"]
    assert back["time"] - died["time"] < 60  # the aim is 15 s on an idle machine
    assert_whole(folder, "a", 4000)


@pytest.mark.parametrize(
    "interval",
    [pytest.param(1000, id="checkpointed"), pytest.param(0, id="never checkpointed", marks=pytest.mark.long)],
)
def test_a_killed_learner_goes_on_from_the_last_checkpoint(folder: Path, interval: int) -> None:
    """Two learners are killed, the second perhaps before its first update, and the evaluator. The run goes on from its
    last checkpoint, if there is one, and loses no evaluation."""
    with live(
        folder, "a", "--steps=4000", f"--checkpoint-interval={interval}", "--evaluation.interval=1250"
    ) as process:
        if interval:
            wait_for(process, lambda: events(folder, "a", "checkpoint"))
        wait_for_steps(process, folder, "a", 1500)
        first = ray_process(process, "LearnerProcess")
        first.kill()
        wait_for(process, lambda: events(folder, "a", "learner_died"))
        first.wait()
        ray_process(process, "LearnerProcess").kill()
        ray_process(process, "Evaluator").kill()
        ended_well(process)
    assert len(events(folder, "a", "learner_died")) == 2
    (restarted, *_) = events(folder, "a", "learner_restarted")
    written = [row["updates"] for row in events(folder, "a", "checkpoint") if row["time"] < restarted["time"]]
    assert restarted["updates"] == (written[-1] if interval else 0)
    assert restarted["lost_updates"] >= 0
    assert_whole(folder, "a", 4000)
    scored = [row["env_steps"] // 1250 for row in tiny.rows(folder, "a", "eval")]
    # The last steps may pass between two looks of the coordinator: the final evaluation is then that of 3,750 too.
    assert scored in ([0, 1, 2, 3, 3], [0, 1, 2, 3]), "no evaluation was lost"


def test_a_killed_shard_comes_back_with_everything(folder: Path) -> None:
    with live(folder, "a", "--steps=4300", "--replay.shards=2") as process:
        wait_for_steps(process, folder, "a", 1500)
        ray_process(process, "ShardProcess").kill()
        (back,) = wait_for(process, lambda: events(folder, "a", "shard_back"))
        output = ended_well(process)
    assert back["origin"] == "files" and back["lost"] == 0 and back["transitions"] > 0
    assert len(events(folder, "a", "shard_died")) == 1
    assert "is back after" in output
    assert_whole(folder, "a", 4300)


def test_a_run_killed_as_a_whole_resumes_with_all_that_was_pushed(folder: Path) -> None:
    """Replay's files hold every transition pushed by a run that is killed 800 steps after its last checkpoint."""
    options = ["--steps=4000", "--checkpoint-interval=1200", f"--replay.directory={folder}/live"]
    with live(folder, "a", *options) as process:
        wait_for(process, lambda: events(folder, "a", "checkpoint"))
        wait_for_steps(process, folder, "a", 2000)
        for part in [*relatives(process.pid), psutil.Process(process.pid)]:
            part.kill()
        process.wait()
    last = tiny.rows(folder, "a", "metrics")[-1]
    with live(folder, "a", *options, "--resume") as process:
        (began,) = wait_for(process, lambda: [e for e in events(folder, "a", "shard_began") if e["origin"] != "empty"])
        ended_well(process)
    assert began["origin"] == "files" and began["transitions"] >= last["env_steps"] > 1900
    assert_whole(folder, "a", 4000)
    assert not list((folder / "live").rglob("rows")), "files that a checkpoint has made needless"


@pytest.mark.long
def test_a_resume_with_other_shards_and_capacity_begins_full(folder: Path) -> None:
    with live(folder, "a", "--steps=2000", "--replay.shards=2") as process:
        ended_well(process)
    with live(folder, "a", "--steps=4200", "--replay.shards=3", "--replay.capacity=3000", "--resume") as process:
        ended_well(process)
    began = [e for e in events(folder, "a", "shard_began") if e["origin"].startswith("snapshot")]
    assert [e["shard"] for e in began] == [0, 1, 2]
    assert sum(e["transitions"] for e in began) == 2000
    assert_whole(folder, "a", 4200)


@pytest.mark.long  # tests/cluster loses a node with its host
def test_a_node_is_lost(folder: Path) -> None:
    """A run loses one of three nodes, with a shard and actors. It goes on, and the shard comes back on another node
    from its snapshot."""
    tiny.script("lose_a_node", folder)
    removed_at = float((folder / "removed").read_text())
    (died,) = events(folder, "a", "shard_died")
    (back,) = events(folder, "a", "shard_back")
    print(f"noticed after {died['time'] - removed_at:.1f} s, back {back['time'] - removed_at:.1f} s after it")
    assert back["origin"].startswith("snapshot") and back["transitions"] > 0
    assert back["time"] - removed_at < 60  # the aim is 30 s on an idle machine
    between = [row["updates"] for row in tiny.rows(folder, "a", "metrics") if removed_at < row["time"] < back["time"]]
    assert between and between[-1] > between[0], "training went on"
    last = tiny.rows(folder, "a", "metrics")[-1]
    assert last["samples_per_insert"] == pytest.approx(last["samples_per_insert_target"], rel=0.02)
    assert last["env_steps"] == 7000


@pytest.mark.long
def test_a_serial_run_goes_on_distributed_and_back(folder: Path) -> None:
    """Both executions share one checkpoint format: each can resume a run of the other."""
    for steps, execution in ((1000, "serial"), (2000, "distributed"), (3000, "serial")):
        resume = [] if execution == "serial" and steps == 1000 else ["--resume"]
        done = tiny.train(folder, "a", f"--steps={steps}", f"--execution={execution}", *resume)
        assert done.returncode == 0, done.stdout + done.stderr
        assert_whole(folder, "a", steps)
