"""Tests of demonstrations: they are read as written, sampled in their share and used before the first step."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from actors.recorder import record
from cluster.config.paths import absolute
from cluster.config.schema import Config, ReplayConfig
from cluster.errors import ConfigError
from cluster.preflight.origin import successor
from cluster.preflight.validation import validate
from learner.learner import Learner
from replay.demonstrations import (
    BadDemonstrations,
    Episode,
    Source,
    read,
    to_episodes,
    to_rows,
    write_minari,
    write_npz,
)
from replay.rate_limiter import RateLimit, RateLimiter
from replay.shard import Shard, ShardSpec
from replay.store.demonstration_rings import DemonstrationRings
from replay.store.returns import discounted_return_extremes
from replay.store.rows import Push
from tests.integration.test_serial import StopAt, assert_identical, config, run
from tests.support import tiny
from tests.support.specs import learner_spec
from tests.support.streams import segments, spec

TASK = "gymnasium/tests.support.counting:Counting-v0"


def episodes(seed: int, count: int = 3, size: int = 5, acts: int = 2, value: float | None = None) -> list[Episode]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        length = int(rng.integers(2, 9))
        found.append(
            Episode(
                rng.normal(size=(length + 1, size)).astype(np.float32),
                rng.uniform(-1, 1, (length, acts)).astype(np.float32),
                np.full(length, value, np.float32) if value is not None else rng.normal(size=length).astype(np.float32),
                number % 2 == 0,
            )
        )
    return found


def assert_equal(some: list[Episode], others: list[Episode]) -> None:
    assert len(some) == len(others)
    for one, other in zip(some, others, strict=True):
        for ours, theirs in zip(one[:3], other[:3], strict=True):
            assert ours.dtype == theirs.dtype == np.float32
            np.testing.assert_array_equal(ours, theirs)
        assert one.terminated == other.terminated


Writer = Callable[[Path, list[Episode]], Path]


def as_npz(folder: Path, made: list[Episode]) -> Path:
    write_npz(folder / "made.npz", made)
    return folder / "made.npz"


def as_minari(folder: Path, made: list[Episode]) -> Path:
    pytest.importorskip("minari", reason="needs minari: pip install 'minari[hdf5]'")
    return write_minari(folder, "brc/made-v0", made, "of a test")


@pytest.mark.parametrize("write", [as_npz, as_minari])
def test_what_was_written_is_read_back_bit_for_bit(tmp_path: Path, write: Writer) -> None:
    made = episodes(0)
    assert_equal(read(str(write(tmp_path, made)), ("",), 5, 2), made)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 6))
def test_rows_hold_every_transition_of_an_episode(seed: int, count: int) -> None:
    made = episodes(seed, count)
    for one in made:
        assert_equal(to_episodes(to_rows(one, 4), 2), [one])


def test_a_dictionary_and_bounds_of_actions_are_turned_into_those_of_the_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A dataset of another program has a Dict of observations and actions in its robot's units."""
    minari = pytest.importorskip("minari", reason="needs minari: pip install 'minari[hdf5]'")
    from gymnasium import spaces
    from minari.data_collector import EpisodeBuffer

    observations = {"speed": np.arange(4.0)[:, None], "place": np.arange(8.0).reshape(4, 2)}
    actions = np.array([[0.0, -2.0], [2.0, 0.0], [4.0, 2.0]], np.float32)
    bounds = spaces.Box(np.array([0.0, -2.0], np.float32), np.array([4.0, 2.0], np.float32))
    parts: dict[str, spaces.Space[Any]] = {"speed": spaces.Box(-9, 9, (1,)), "place": spaces.Box(-9, 9, (2,))}
    buffer = EpisodeBuffer(
        id=0,
        observations=observations,
        actions=actions,
        rewards=[1.0, 2.0, 3.0],
        terminations=[False, False, True],
        truncations=[False] * 3,
    )
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with pytest.warns(UserWarning, match="author"):
        minari.create_dataset_from_buffers(
            "robot/theirs-v0", buffer=[buffer], observation_space=spaces.Dict(parts), action_space=bounds
        )
    (found,) = read(str(tmp_path / "robot" / "theirs-v0"), ("place", "speed"), 3, 2)
    np.testing.assert_array_equal(found.observations, [[0, 1, 0], [2, 3, 1], [4, 5, 2], [6, 7, 3]])
    np.testing.assert_array_equal(found.actions, [[-1, -1], [0, 0], [1, 1]])
    assert found.terminated
    with pytest.raises(BadDemonstrations, match="and the task also force"):
        read(str(tmp_path / "robot" / "theirs-v0"), ("place", "force"), 3, 2)


def test_files_that_cannot_be_used_are_refused_with_the_reason(tmp_path: Path) -> None:
    file = as_npz(tmp_path, episodes(0))
    with pytest.raises(BadDemonstrations, match=r"observations of shape \(5,\).* and the task \(4,\)"):
        read(str(file), ("",), 4, 2)
    with np.load(file) as saved:
        arrays = dict(saved)
    np.savez(file, **arrays | {"rewards": arrays["rewards"] * np.nan})
    with pytest.raises(BadDemonstrations, match="not finite"):
        read(str(file), ("",), 5, 2)
    np.savez(file, **arrays | {"rewards": arrays["rewards"][:, None]})
    with pytest.raises(BadDemonstrations, match=r"rewards of shape \(\d+, 1\)"):
        read(str(file), ("",), 5, 2)
    np.savez(file, **arrays | {"actions": 500 * arrays["actions"]})
    with pytest.raises(BadDemonstrations, match=r"actions up to 4[0-9.]+, and not in \[-1, 1\]"):
        read(str(file), ("",), 5, 2)
    np.savez(file, **{name: array for name, array in arrays.items() if name != "actions"})
    with pytest.raises(BadDemonstrations, match="lacks actions"):
        read(str(file), ("",), 5, 2)
    with pytest.raises(BadDemonstrations, match=r"nothing\.npz cannot be read: FileNotFoundError"):
        read(str(tmp_path / "nothing.npz"), ("",), 5, 2)


def shown_shard(tmp_path: Path, share: float, offline: int = 0) -> Shard:
    of = replace(spec(2, observation_shapes=((5,), (5,)), action_size=2), demonstration_share=share)
    sources = (Source(task=1, path=str(as_npz(tmp_path, episodes(3, 6, value=7.0))), keys=("",), observed=5, acted=2),)
    limit = RateLimit(samples_per_step=8.0, batch_size=8, warmup=2, max_ahead=10, offline=offline)
    shard = Shard(ShardSpec(index=0, storage=of, limit=limit, seed=0, demonstrations=sources))
    shard.settle(0, (0, 0))
    return shard


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_every_batch_has_the_share_of_each_task(tmp_path: Path, share: float) -> None:
    """Demonstrations have a reward of 7, and what actors pushed has others."""
    shard = shown_shard(tmp_path, share)
    for task in (0, 1):
        rows = segments(100 * task + 10, [9], 5)
        rows = rows._replace(actions=np.zeros((len(rows.flags), 2), np.float32))
        assert shard.insert("a", task, Push({task: rows}, {task: (-1.0, 1.0)})).accepted
    held = shard.storage.transitions
    for batches in (shard.storage.sample(5, 16, threading.Lock()) for _ in range(4)):
        shown = batches.rewards == 7.0
        assert not shown[batches.task_ids == 0].any()
        of_task = (shown & (batches.task_ids == 1)).sum(axis=1)
        assert (np.abs(of_task - 8 * share) <= 1).all()
        assert (np.diff(batches.task_ids, axis=1) >= 0).all(), "the rows of a batch are grouped by task"
    assert shard.storage.transitions == held == [9, 9]
    low, high = zip(
        *(discounted_return_extremes(one.rewards, not one.terminated, 0.99) for one in episodes(3, 6, value=7.0)),
        strict=True,
    )
    assert batches.return_maximum[1] == np.float32(max(high)) and batches.return_minimum[1] == -1.0
    assert batches.return_maximum[0] == 1.0 and min(low) > -1.0


def test_updates_before_the_first_step_hold_the_steps_back(tmp_path: Path) -> None:
    shard = shown_shard(tmp_path, 0.5, offline=3)
    rows = segments(10, [9], 5)._replace(actions=np.zeros((10, 2), np.float32))
    # Task 0 holds nothing: what the sampler may be waiting for is never refused.
    assert shard.insert("b", 0, Push({0: rows}, {})).accepted
    assert not shard.insert("a", 0, Push({1: rows}, {})).accepted
    assert shard.limiter.batches_allowed() == 3
    reply = shard.sample(5, (0, 0))
    assert reply.granted == 3 and reply.batches is not None
    assert (reply.batches.rewards[reply.batches.task_ids == 1] == 7.0).all()
    assert shard.insert("a", 1, Push({1: rows}, {})).accepted
    limiter = shard.limiter
    assert limiter.online == 0 and limiter.batches_allowed() == 9 - 2


@given(st.integers(0, 5), st.integers(1, 40))
def test_offline_batches_come_on_top_of_the_ratio(offline: int, steps: int) -> None:
    limit = RateLimit(samples_per_step=3.0, batch_size=4, warmup=2, max_ahead=10, offline=offline)
    plain = replace(limit, offline=0)
    assert limit.batches_due(steps) == plain.batches_due(steps) + offline
    ours, theirs = RateLimiter(limit, 1), RateLimiter(plain, 1)
    ours.sampled(4 * offline)
    for limiter in (ours, theirs):
        limiter.inserted(0, steps)
    assert ours.ahead() == theirs.ahead() and ours.may_insert([0]) == theirs.may_insert([0])


def test_parts_of_episodes_stretch_no_scale(tmp_path: Path) -> None:
    """Parts are not taken to give their mean reward for ever: it is not known what follows them."""
    whole = Episode(np.zeros((101, 5), np.float32), np.zeros((100, 2), np.float32), np.zeros(100, np.float32), False)
    whole.rewards[70] = 1.0
    parts = [
        Episode(
            whole.observations[at : at + 11], whole.actions[at : at + 10], whole.rewards[at : at + 10], False, False
        )
        for at in range(0, 100, 10)
    ]
    of = spec(1, observation_shapes=((5,),), action_size=2)
    for write in (as_npz, as_minari):
        file = write(tmp_path / write.__name__, parts)
        (back, *_) = read(str(file), ("",), 5, 2)
        assert not back.whole
        found = DemonstrationRings(of, [Source(task=0, path=str(file), keys=("",), observed=5, acted=2)])
        assert found.return_maximum[0] == 1.0 and found.return_minimum[0] == 0.0
    mean = whole.rewards.mean() / (1 - of.discount)
    file = as_npz(tmp_path / "whole", [whole])
    assert read(str(file), ("",), 5, 2)[0].whole
    found = DemonstrationRings(of, [Source(task=0, path=str(file), keys=("",), observed=5, acted=2)])
    assert found.return_maximum[0] > mean > 0.9


def test_moments_of_demonstrations_count_once_over_all_shards(tmp_path: Path) -> None:
    made = episodes(3, 6)
    source = Source(task=0, path=str(as_npz(tmp_path, made)), keys=("",), observed=5, acted=2)
    of = spec(1, observation_shapes=((5,),), action_size=2)
    for shards in (1, 4, 7):
        counts = [DemonstrationRings(of, [source], index, shards).return_moments[0, 0] for index in range(shards)]
        assert sum(counts) == sum(len(one.rewards) for one in made)


def test_recorded_episodes_are_not_the_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each copy of Uneven has episodes of 2 steps and of 20 in turn. Each plays as many as the others."""
    plan = validate(tiny.config(tasks=("gymnasium/tests.support.counting:Uneven-v0",)))
    message = Learner(learner_spec(plan.networks)).policy()
    found, successes = record(plan.evaluator(), 0, message, 8)
    assert sorted(len(one.rewards) for one in found) == [2] * 8 and len(successes) == 8
    found, _ = record(plan.evaluator(), 0, message, 32)
    assert sorted(len(one.rewards) for one in found) == [2] * 16 + [20] * 16


def test_add_task_takes_demonstrations_of_the_tasks_that_stay(tmp_path: Path) -> None:
    file = as_npz(tmp_path, episodes(1, 20))
    run(with_demonstrations(tmp_path, "a", file))
    other = "dmc/cartpole-swingup"
    for keep, left in ((True, (f"{TASK}={file}",)), (False, ())):
        _, found = successor(tmp_path / "a", (other,), keep=keep)
        assert found.replay.demonstrations == left and found.learner.offline_updates == 0
        validate(found)


def test_paths_are_made_absolute_and_ids_are_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes of a run have other working folders."""
    monkeypatch.chdir(tmp_path)
    as_npz(tmp_path, episodes(0))
    given = ("made.npz", "dmc/a=made.npz", "not/there-v0", "dmc/a=not/there-v0")
    found = absolute(tiny.config(replay=ReplayConfig(demonstrations=given))).replay.demonstrations
    assert found == (f"{tmp_path}/made.npz", f"dmc/a={tmp_path}/made.npz", *given[2:])


def test_shards_share_the_episodes(tmp_path: Path) -> None:
    made = episodes(3, 6)
    source = Source(task=0, path=str(as_npz(tmp_path, made)), keys=("",), observed=5, acted=2)
    of = spec(1, observation_shapes=((5,),), action_size=2)
    parts = [DemonstrationRings(of, [source], index, 4) for index in range(4)]
    lengths = [len(one.rewards) for one in made]
    assert [part.rings[0].transitions for part in parts] == [sum(lengths[index::4]) for index in range(4)]
    assert all(part.return_maximum == parts[0].return_maximum for part in parts), "each knows the scale of all"
    assert DemonstrationRings(of, [source], 6, 7).rings[0].transitions == sum(lengths)


def with_demonstrations(folder: Path, name: str, file: Path, **changes: object) -> Config:
    learner = replace(tiny.config().learner, offline_updates=40)
    replay = ReplayConfig(capacity=20_000, warmup=300, demonstrations=(str(file),))
    return config(folder, name, tasks=(TASK,), steps=700, learner=learner, replay=replay, **changes)


def test_a_serial_run_learns_from_them_first_and_is_resumed_exactly(tmp_path: Path) -> None:
    file = as_npz(tmp_path, episodes(1, 20))
    unbroken = run(with_demonstrations(tmp_path, "unbroken", file))
    assert unbroken.learner.updates == unbroken.plan.total_updates == 40 + (700 - 300) // 2
    stats = unbroken.shards[0].stats()
    assert stats.limiter.offline_samples == 40 * 32 and stats.limiter.samples_per_insert == pytest.approx(16.0)
    run(with_demonstrations(tmp_path, "broken", file), StopAt(450))
    assert_identical(unbroken, run(with_demonstrations(tmp_path, "broken", file, resume=True)))


def test_a_distributed_run_records_what_others_sample(folder: Path) -> None:
    pytest.importorskip("minari", reason="needs minari: pip install 'minari[hdf5]'")
    runs = f"--runs-folder={folder}/runs"
    done = tiny.train(folder, "a", f"--tasks={TASK}", "--steps=600")
    assert done.returncode == 0, done.stdout + done.stderr
    for words in (["--episodes=3"], ["--replay", f"--to={folder}/replay"], ["--format=npz", f"--to={folder}/npz"]):
        done = tiny.run("record", "a", *words, runs)
        assert done.returncode == 0 and "--replay.demonstrations" in done.stdout, done.stdout + done.stderr
    minari = folder / "runs" / "a" / "demonstrations" / "gymnasium" / "tests-support-counting-Counting-v0-v0"
    npz = folder / "npz" / "gymnasium-tests-support-counting-Counting-v0.npz"
    keys = ("seed", "steps")
    played, same = (read(str(file), keys, 5, 2) for file in (minari, npz))
    assert_equal(played, same[:3])
    assert [len(one.rewards) for one in played] == [7, 7, 7] and all(one.terminated for one in played)
    held = folder / "replay" / "gymnasium" / minari.name
    assert 500 <= sum(len(one.rewards) for one in read(str(held), keys, 5, 2)) <= 600
    options = [f"--tasks={TASK}", "--steps=900", "--replay.shards=2", "--learner.offline-updates=30"]
    done = tiny.train(folder, "b", *options, "--replay.demonstrations", str(minari), str(npz))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = tiny.rows(folder, "b", "metrics")
    last, acted = rows[-1], [row["policy_version"] for row in rows if row["policy_version"]]
    assert all(version >= 30 for version in acted), "actors began before all updates were made"
    assert last["updates"] == 30 + (900 - 300) // 4
    assert last["env_steps"] == 900
    slow = "gymnasium/tests.support.counting:slow-v0"
    done = tiny.run("record", "a", f"--as-task={slow}", "--episodes=1", f"--to={folder}/slow", runs)
    assert done.returncode == 0 and f"--replay.demonstrations {slow}=" in done.stdout, done.stdout + done.stderr
    other = tiny.run("record", "a", "--as-task=dmc/cartpole-swingup", runs)
    assert other.returncode == 2 and "with the same observations and actions" in other.stderr, other.stderr
    again = tiny.run("record", "a", runs)
    assert again.returncode == 2 and "exists already" in again.stderr


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"demonstrations": ("nothing.npz",)}, "--replay.demonstrations: nothing.npz cannot be read"),
        ({"demonstrations": ("dmc/cartpole-swingup=a.npz", "dmc/walker-run=b.npz")}, "'dmc/walker-run' is not a task"),
        ({"demonstrations": ("a.npz",), "tasks": 2}, "a.npz names no task"),
        ({"offline": 10}, "--learner.offline-updates 10: there are no --replay.demonstrations of dmc/cartpole-swingup"),
    ],
)
def test_demonstrations_that_a_run_cannot_use_are_refused(
    tmp_path: Path, changes: dict[str, object], said: str
) -> None:
    base = tiny.config(runs_folder=str(tmp_path))
    tasks = ("dmc/cartpole-swingup", "dmc/cheetah-run")[: 2 if "tasks" in changes or len(str(changes)) > 70 else 1]
    given = changes.get("demonstrations", ())
    assert isinstance(given, tuple)
    made = replace(
        base,
        tasks=tasks,
        replay=replace(base.replay, demonstrations=given),
        learner=replace(base.learner, offline_updates=int(str(changes.get("offline", 0)))),
    )
    with pytest.raises(ConfigError, match=said):
        validate(made)
