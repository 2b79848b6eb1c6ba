"""Tests of the evaluator: the number of copies at a time does not change results, and endless episodes are cut."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from actors import copies
from actors.benchmarks.catalogue import resolve
from actors.environments import Step, make_environment
from actors.episodes import EpisodeTracker
from actors.evaluator import Abandoned, Evaluation, Evaluator, EvaluatorSpec
from learner.agents.catalogue import acting
from learner.networks.modules import Critic, Policy
from learner.networks.spec import NetworkSpec
from learner.state.publishing import Outgoing
from replay.policy_store import PolicyMessage
from replay.store.locations import node_memory

HEAVY = ("gymnasium/tests.support.odd_envs_evaluator:Heavy-v0", "gymnasium/tests.support.odd_envs_evaluator:Weighty-v0")


def evaluator(names: tuple[str, ...], episodes: int) -> tuple[Evaluator, PolicyMessage]:
    """Return an evaluator of these tasks, with episodes of at most 60 steps, and a policy for it."""
    tasks = tuple(replace(task, episode_limit=min(task.episode_limit, 60)) for task in resolve(names))
    observed, acted = max(task.observation_size for task in tasks), max(task.action_size for task in tasks)
    networks = NetworkSpec(
        observation_size=observed, action_size=acted, num_tasks=len(tasks), width=16, policy_width=256
    )
    message = Outgoing(Policy(networks), Critic(networks).embedding_table(), 1).message()
    spec = EvaluatorSpec(
        tasks=tasks,
        played=tuple(range(len(tasks))),
        episodes=episodes,
        observation_size=observed,
        action_size=acted,
        seed=0,
        acting=acting(networks),
    )
    return Evaluator(spec), message


def most_alive(file: Path) -> int:
    return max(itertools.accumulate(int(line) for line in file.read_text().split()))


@pytest.mark.parametrize("episodes", [10, 64, 200])
def test_at_most_so_many_copies_live_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, episodes: int) -> None:
    monkeypatch.setenv("ALIVE", str(tmp_path / "alive"))
    made, message = evaluator(HEAVY, episodes)
    found = made.evaluate(message, 0)
    assert [len(lengths) for lengths in found.lengths.values()] == [episodes] * 2
    assert most_alive(tmp_path / "alive") <= min(2 * episodes, copies.MOST_COPIES)
    assert not made.copies.pools


def test_fewer_where_memory_is_short_and_the_same_comes_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are the same in 55 MB, which hold five copies of 10 MB and one just begun."""
    monkeypatch.setenv("ALIVE", str(tmp_path / "alive"))
    made, message = evaluator(HEAVY, 20)
    whole = made.evaluate(message, 3)
    assert most_alive(tmp_path / "alive") > 12
    (tmp_path / "alive").unlink()
    monkeypatch.setattr(copies, "MEMORY_SHARE", 55e6 / node_memory()[0])
    made, _ = evaluator(HEAVY, 20)
    assert made.evaluate(message, 3) == whole
    assert 1 <= most_alive(tmp_path / "alive") <= 8


def test_copies_that_grow_while_they_play_give_way_and_the_same_comes_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Copies that are small when made and grow in play are given up. The results are the same."""
    monkeypatch.setenv("ALIVE", str(tmp_path / "alive"))
    names = ("gymnasium/tests.support.odd_envs_evaluator:Growing-v0",)
    made, message = evaluator(names, 20)
    whole = made.evaluate(message, 3)
    assert most_alive(tmp_path / "alive") == 20
    (tmp_path / "alive").unlink()
    monkeypatch.setattr(copies, "MEMORY_SHARE", 55e6 / node_memory()[0])
    made, _ = evaluator(names, 20)
    assert made.evaluate(message, 3) == whole
    (tmp_path / "alive").unlink()
    assert made.evaluate(message, 4) != whole
    assert 1 <= most_alive(tmp_path / "alive") <= 8, "an evaluation knows what those before it have seen"


def test_episodes_that_gave_way_are_played_with_their_own_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tasks alternate, with more episodes than fit at a time. Given-up episodes keep their task."""
    monkeypatch.setenv("ALIVE", str(tmp_path / "alive"))
    names = tuple(f"gymnasium/tests.support.odd_envs_evaluator:{kind}-v0" for kind in ("Growing", "Waxing"))
    made, message = evaluator(names, 50)
    whole = [made.evaluate(message, number) for number in (3, 4)]
    monkeypatch.setattr(copies, "MEMORY_SHARE", 150e6 / node_memory()[0])
    made, _ = evaluator(names, 50)
    assert [made.evaluate(message, number) for number in (3, 4)] == whole
    assert all(length > 0 for lengths in whole[0].lengths.values() for length in lengths)


@pytest.mark.parametrize("most", [1, 3, 7])
def test_what_is_found_does_not_depend_on_how_many_play_at_a_time(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Results are equal also in chaotic tasks, where the last bit of an action soon matters."""
    names = ("dmc/cheetah-run", "dmc/hopper-hop", "gymnasium/tests.support.odd_envs_evaluator:Faulty-v0")
    made, message = evaluator(names, 5)

    def play() -> list[Evaluation]:
        return [made.evaluate(message, 1), made.evaluate(None, 1)]

    whole = play()
    monkeypatch.setattr(copies, "MOST_COPIES", most)
    assert play() == whole
    assert whole[0].returns != whole[1].returns
    assert len(set(whole[1].returns["dmc/cheetah-run"])) == 5, "every episode has actions of its own"


def test_an_environment_without_an_end_is_cut_at_the_limit_of_its_task() -> None:
    (name,) = names = ("gymnasium/tests.support.odd_envs_evaluator:Unlimited-v0",)
    made, message = evaluator(names, 2)
    assert made.evaluate(message, 0).lengths == {name: [30, 30]}
    environment = make_environment("envpool", resolve(names)[0], [1, 2])
    environment.reset()
    for count in range(1, 61):
        environment.send(np.zeros((2, 2), np.float32))
        step = environment.recv()
        assert step.truncated.all() == (count % 30 == 0)


def test_an_episode_beyond_its_limit_is_named() -> None:
    tracker = EpisodeTracker(4, copies=1, discount=0.5, episode_limit=2)
    one, no, observations = np.ones(1, np.float32), np.zeros(1, bool), np.zeros((1, 1), np.float32)
    step = Step(observations, one, no, no, no, observations)
    tracker.append(step)
    tracker.append(step)
    with pytest.raises(RuntimeError, match="task 4 goes on beyond its limit of 2 steps"):
        tracker.append(step)


def test_an_evaluation_ends_when_it_is_asked_to() -> None:
    made, message = evaluator(("gymnasium/tests.support.odd_envs_evaluator:Faulty-v0",), 3)
    asked = iter([False] * 7)
    with pytest.raises(Abandoned):
        made.evaluate(message, 0, lambda: next(asked, True))
    assert not made.copies.pools
    assert made.evaluate(message, 0).lengths["gymnasium/tests.support.odd_envs_evaluator:Faulty-v0"] == [20] * 3
