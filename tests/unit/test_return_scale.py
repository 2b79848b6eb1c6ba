"""The scale by the deviation of running returns: actors measure, shards add up, the learner divides."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from actors.environments import Step
from actors.episodes import EpisodeTracker
from learner.agents.reward_normalizer import RewardNormalizer
from replay.store import moments
from tests.support import golden_critics as golden

GOLDEN = golden.load("normalisers")


def step(rewards: np.ndarray, terminated: np.ndarray, truncated: np.ndarray) -> Step:
    count = len(rewards)
    observations = np.zeros((count, 1), np.float32)
    ended = (terminated | truncated).any()
    following = observations.copy() if ended else observations
    return Step(observations, rewards, terminated, truncated, np.zeros(count, bool), following)


def test_running_returns_and_scale_are_those_of_simbav2() -> None:
    """The reference's float32. Its prior and its bound are those of the scale; the actor measures the rest."""
    rewards = GOLDEN["rewards"].numpy()
    terminated, truncated = (GOLDEN[name].numpy().astype(bool) for name in ("terminated", "truncated"))
    discount = float(GOLDEN["discount"])
    tracker = EpisodeTracker(0, rewards.shape[1], discount, 10**6, measures_returns=True)
    total = np.zeros(moments.SIZE)
    scale = RewardNormalizer(1, discount, 0.0, float(GOLDEN["g_max"]), kind="return-scale")
    for index in range(len(rewards)):
        tracker.append(step(rewards[index].astype(np.float32), terminated[index], truncated[index]))
        assert tracker.running is not None
        np.testing.assert_allclose(tracker.running, GOLDEN["simbav2/G"][index], rtol=2e-6, atol=2e-6)
        taken = tracker.take_moments()
        assert taken is not None
        total = moments.merge(total, taken)
        np.testing.assert_allclose(total[1], GOLDEN["simbav2/G_mean"][index], rtol=1e-4, atol=2e-5)
        assert total[3] == pytest.approx(float(GOLDEN["simbav2/G_abs_max"][index]), rel=2e-6)
    # FlashSAC has the same rule; only its prior fades by another one.
    assert total[2] / total[0] == pytest.approx(float(GOLDEN["flashsac/G_var"][-1]), rel=5e-5)
    assert total[3] == pytest.approx(float(GOLDEN["flashsac/G_abs_max"][-1]), rel=2e-6)
    scale.see(0, total[None])
    ids, temperature = torch.zeros(8, dtype=torch.int64), torch.zeros(())
    for limit, name in ((float(GOLDEN["g_max"]), "test_rewards_out"), (2.0, "test_rewards_out_gmax2")):
        scale.value_limit = limit
        found = scale.normalize(GOLDEN["test_rewards"].float(), ids, temperature)
        torch.testing.assert_close(found, GOLDEN[f"simbav2/{name}"].float(), rtol=5e-6, atol=5e-6)
        if f"flashsac/{name}" in GOLDEN:
            torch.testing.assert_close(found, GOLDEN[f"flashsac/{name}"].float(), rtol=5e-5, atol=5e-6)


def test_scales_of_each_environment_are_those_of_xqc_and_fasttd3() -> None:
    """Every environment is a task here, and one of XQC's seeds. FastTD3 has one that keeps tasks apart."""
    rewards, discount = GOLDEN["rewards"].numpy(), float(GOLDEN["discount"])
    ends = [GOLDEN[name].numpy().astype(bool) for name in ("terminated", "truncated")]
    tasks = rewards.shape[1]
    trackers = [EpisodeTracker(task, 1, discount, 10**6, measures_returns=True) for task in range(tasks)]
    total = np.zeros((tasks, moments.SIZE))
    unbounded = RewardNormalizer(tasks, discount, 0.0, 5.0, kind="return-deviation")
    bounded = RewardNormalizer(tasks, discount, 0.0, float(GOLDEN["g_max"]), kind="return-scale")
    for index in range(len(rewards)):
        for task, tracker in enumerate(trackers):
            tracker.append(step(rewards[index, task : task + 1].astype(np.float32), *(e[index, [task]] for e in ends)))
            taken = tracker.take_moments()
            assert taken is not None and tracker.running is not None
            total[task] = moments.merge(total[task], taken)
            for theirs in ("xqc", "fasttd3_per_task"):
                expected = GOLDEN[f"{theirs}/G"][index, [task]]
                np.testing.assert_allclose(tracker.running, expected, rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(total[:, 1], GOLDEN["xqc/G_mean"][index], rtol=2e-6, atol=2e-6)
        np.testing.assert_allclose(total[:, 3], GOLDEN["fasttd3_per_task/G_abs_max"][index], rtol=2e-6)
        unbounded.see(0, total)
        found = unbounded.denominator(torch.zeros(())).double().numpy()
        if index == 0:
            assert np.isinf(found).all()  # XQC divides by 1e-8 until two returns differ
            continue
        np.testing.assert_allclose(np.square(found), GOLDEN["xqc/G_var"][index], rtol=2e-6)
        np.testing.assert_allclose(found, GOLDEN["fasttd3_per_task/G_std"][index], rtol=2e-6)
    bounded.see(0, total)
    raw, temperature = GOLDEN["test_rewards"].float(), torch.zeros(())
    for task in range(tasks):
        ids = torch.full((len(raw),), task)
        divided = unbounded.normalize(raw, ids, temperature)
        torch.testing.assert_close(divided, GOLDEN["xqc/test_rewards_out"][task].float(), rtol=2e-6, atol=0)
    divided = bounded.normalize(raw, GOLDEN["test_task_ids"].long(), temperature)
    torch.testing.assert_close(divided, GOLDEN["fasttd3_per_task/test_rewards_out"].float(), rtol=5e-6, atol=0)


@given(st.lists(st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5), min_size=1, max_size=6))
def test_merged_moments_are_those_of_all(parts: list[list[float]]) -> None:
    merged = np.zeros(moments.SIZE)
    for part in parts:
        merged = moments.merge(merged, moments.of(np.array(part)))
    everything = np.concatenate([np.array(part) for part in parts])
    expected = [len(everything), everything.mean(), np.square(everything - everything.mean()).sum()]
    np.testing.assert_allclose(merged[:3], expected, rtol=1e-9, atol=1e-6)
    assert merged[3] == np.abs(everything).max()


def table(count: float, mean: float, squares: float, largest: float) -> np.ndarray:
    return np.array([[count, mean, squares, largest]])


def test_a_shard_that_begins_again_does_not_undo_what_is_known() -> None:
    scale = RewardNormalizer(1, 0.99, 0.0, 5.0, kind="return-scale")
    scale.see(0, table(100, 1.0, 400.0, 3.0))
    known = scale.denominator(torch.zeros(())).clone()
    scale.see(0, table(10, 0.0, 1.0, 0.5))
    assert torch.equal(scale.denominator(torch.zeros(())), known)
    scale.see(1, table(50, 1.0, 200.0, 4.0))
    assert float(scale.moments[0, 0]) == 150 and float(scale.moments[0, 3]) == 4.0
    other = RewardNormalizer(1, 0.99, 0.0, 5.0, kind="return-scale")
    other.moments.copy_(scale.moments)  # as a resume does
    other.see(0, table(20, 0.0, 1.0, 0.5))
    assert torch.equal(other.moments, scale.moments)


def test_raw_rewards_stay_as_they_are() -> None:
    rewards = torch.tensor([1.0, -20.0])
    scale: Any = RewardNormalizer(1, 0.99, -2.0, 5.0, kind="none")
    assert torch.equal(scale.normalize(rewards, torch.zeros(2, dtype=torch.int64), torch.ones(())), rewards)
    assert scale.denominator(torch.ones(())).tolist() == [1.0]
