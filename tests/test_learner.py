"""The learner as a whole: normaliser, exact resume, refusal of foreign checkpoints, non-finite losses."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner import brc, checkpoint
from learner.brc import BRCSettings
from learner.learner import Learner, LearnerSpec
from learner.networks import Critic, NetworkSpec
from learner.reward_normalizer import RewardNormalizer
from replay.rows import Batches
from tests import golden_vectors as golden


def spec(**changes: Any) -> LearnerSpec:
    values: dict[str, Any] = {
        "networks": NetworkSpec(5, 2, 3, width=16, policy_width=16),
        "settings": BRCSettings(),
        "batch_size": 8,
        "most_batches": 4,
        "num_shards": 1,
        "seed": 1,
    }
    return LearnerSpec(**(values | changes))


def batches(seed: int, count: int = 3) -> Batches:
    rng = np.random.default_rng(seed)

    def normal(*shape: int) -> np.ndarray:
        return rng.standard_normal((count, 8, *shape)).astype(np.float32)

    return Batches(
        normal(5),
        np.tanh(normal(2)),
        normal(),
        (rng.random((count, 8)) < 0.9).astype(np.float32),
        normal(5),
        rng.integers(0, 3, (count, 8)),
        np.array([-3.0, -1.0, np.inf], np.float32),
        np.array([5.0, 1.0, -np.inf], np.float32),
    )


def parameters(learner: Learner) -> list[torch.Tensor]:
    state = learner.state
    modules = [*state.critic.parameters(), *state.target.parameters(), *state.policy.parameters()]
    return [*modules, state.log_temperature]


def assert_equal(one: Learner, other: Learner) -> None:
    for mine, theirs in zip(parameters(one), parameters(other), strict=True):
        assert torch.equal(mine, theirs)


def test_normaliser_follows_the_reference() -> None:
    arrays = golden.load("f_reward_normalizer", torch.float32)
    normalizer = RewardNormalizer(4, float(arrays["discount"]), float(arrays["target_entropy"]), float(arrays["v_max"]))
    half = len(arrays["min_after"]) // 2
    normalizer.merge(arrays["min_after"][half], arrays["max_after"][half])
    normalizer.merge(arrays["min_after"][-1], arrays["max_after"][-1])
    normalizer.merge(arrays["min_after"][0], arrays["max_after"][0])  # extremes only widen
    for index, alpha in enumerate((0.0, 0.1, 0.7)):
        temperature = torch.tensor(alpha)
        expected = arrays["denominator_alpha_0_0.1_0.7"][index]
        torch.testing.assert_close(normalizer.denominator(temperature), expected, rtol=1e-6, atol=0)
        for rewards, ids, normalised in zip(
            arrays["batch_rewards"], arrays["batch_task_ids"], arrays[f"normalised_alpha{alpha}"], strict=True
        ):
            ours = normalizer.normalize(rewards, ids.long(), temperature)
            torch.testing.assert_close(ours, normalised, rtol=1e-6, atol=1e-7)


def test_rewards_of_a_task_without_a_finished_episode_are_zero() -> None:
    normalizer = RewardNormalizer(2, 0.99, -1.0, 10.0)
    normalizer.merge(torch.tensor([-1.0, torch.inf]), torch.tensor([4.0, -torch.inf]))
    rewards = normalizer.normalize(torch.ones(2), torch.tensor([0, 1]), torch.tensor(0.1))
    assert rewards[0] > 0 and rewards[1] == 0


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_resume_is_bit_identical(dtype: str) -> None:
    unbroken, first = Learner(spec(dtype=dtype)), Learner(spec(dtype=dtype))
    for step in range(4):
        unbroken.train(batches(step))
    for step in range(2):
        first.train(batches(step))
    stream = io.BytesIO()
    torch.save(first.state_dict(), stream)
    stream.seek(0)
    resumed = Learner(spec(dtype=dtype, seed=99))
    resumed.load_state_dict(torch.load(stream, weights_only=True))
    for step in range(2, 4):
        resumed.train(batches(step))
    assert_equal(unbroken, resumed)
    assert (resumed.updates, resumed.consumed) == (12, [12])
    assert resumed.reward_scale() == unbroken.reward_scale()
    assert resumed.state.critic.task_embeddings is not None
    assert resumed.state.critic.task_embeddings.dtype == getattr(torch, dtype)


def test_equal_seeds_give_equal_learners_and_others_differ() -> None:
    one, other, third = Learner(spec()), Learner(spec()), Learner(spec(seed=2))
    assert_equal(one, other)
    assert not torch.equal(parameters(one)[0], parameters(third)[0])
    for mine, theirs in zip(one.state.critic.parameters(), one.state.target.parameters(), strict=True):
        assert torch.equal(mine, theirs), "the target starts as a copy"
    heads = one.state.critic.heads
    assert not torch.equal(heads[0].input.weight, heads[1].input.weight)  # type: ignore[union-attr, arg-type]


def test_another_shape_is_refused_by_name() -> None:
    saved = Learner(spec()).state_dict()
    other = Learner(spec(networks=NetworkSpec(5, 2, 3, width=32, policy_width=16)))
    with pytest.raises(ValueError, match=r"'width': \(16, 32\)"):
        other.load_state_dict(saved)


def test_a_loss_that_is_not_finite_is_an_error() -> None:
    learner = Learner(spec())
    poisoned = batches(0)
    poisoned.observations[...] = np.nan
    learner.train(poisoned)
    with pytest.raises(FloatingPointError, match="critic_loss became nan at update 3"):
        learner.read_metrics()


def test_diagnostics_are_measured_when_asked_for() -> None:
    learner = Learner(spec())
    learner.train(batches(0))
    assert set(learner.read_metrics()) == {"critic_loss", "policy_loss", "entropy", "temperature", "q_mean"}
    learner.train(batches(1), diagnostics=True)
    assert {"critic_gradient_norm", "policy_parameter_norm", "target_mean"} <= set(learner.read_metrics())


def test_single_task_has_no_embedding() -> None:
    networks = NetworkSpec(5, 2, 1, width=16, policy_width=16)
    learner = Learner(spec(networks=networks))
    one = batches(0)
    one.task_ids[...] = 0
    learner.train(one._replace(return_minimum=one.return_minimum[:1], return_maximum=one.return_maximum[:1]))
    assert learner.state.critic.task_embeddings is None
    assert "task_embeddings" not in dict(learner.policy().layout)


def test_embedding_norm_is_a_choice() -> None:
    for norm, order in (("l2", 2), ("l1", 1)):
        table = Critic(NetworkSpec(5, 2, 3, width=16, embedding_norm=norm)).embedding_table()
        assert table is not None
        torch.testing.assert_close(torch.linalg.vector_norm(table, order, dim=-1), torch.ones(3))


def test_initialisation_is_orthogonal_with_the_reference_gains() -> None:
    learner = Learner(spec())
    hidden = learner.state.policy.trunk.blocks[0].first.weight.detach()  # type: ignore[union-attr, operator]
    torch.testing.assert_close(hidden @ hidden.T, 2.0 * torch.eye(16), atol=1e-5, rtol=0)
    log_std = learner.state.policy.log_std.weight.detach()
    torch.testing.assert_close(log_std @ log_std.T, torch.eye(2), atol=1e-5, rtol=0)
    assert not learner.state.policy.mean.bias.any()


def test_target_entropy_is_half_the_widest_action() -> None:
    assert brc.target_entropy(38, BRCSettings()) == -19.0


def write(folder: Path, steps: int, keep: int = 2) -> Path:
    temporary = checkpoint.begin(folder, steps)
    (temporary / "learner.pt").write_bytes(bytes(1000))
    return checkpoint.commit(temporary, {"env_steps": steps}, keep)


def test_checkpoints_are_complete_or_absent_and_old_ones_go(tmp_path: Path) -> None:
    checkpoint.begin(tmp_path, 50)
    assert checkpoint.checkpoints(tmp_path) == [], "begun is not there yet"
    for steps in (100, 200, 300):
        write(tmp_path, steps)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["000000000200", "000000000300"]
    newest = checkpoint.checkpoints(tmp_path)[-1]
    manifest = checkpoint.read_manifest(newest)
    checkpoint.verify(newest, manifest)
    assert manifest["env_steps"] == 300


def test_a_second_checkpoint_of_a_step_is_newer_than_the_first(tmp_path: Path) -> None:
    names = [write(tmp_path, 300, keep=3).name for _ in range(3)]
    write(tmp_path, 200, keep=9)
    assert [path.name for path in checkpoint.checkpoints(tmp_path)] == ["000000000200", *names]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_a_damaged_checkpoint_is_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    write(tmp_path, 100)
    newest = write(tmp_path, 200)
    file = newest / ("manifest.json" if damage == "manifest" else "learner.pt")
    if damage == "flip":
        file.write_bytes(b"\1" + file.read_bytes()[1:])
    elif damage == "remove":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(checkpoint.CheckpointError, match=rf"{file.name}.*move .* away to resume from 000000000100"):
        checkpoint.verify(newest, checkpoint.read_manifest(newest))
    assert newest.is_dir() and len(checkpoint.checkpoints(tmp_path)) == 2


def test_between_updates_the_learner_is_whole() -> None:
    """What is saved between two updates of one call goes on as if it had been saved after a call."""
    learner, data = Learner(spec()), batches(0, count=3)
    saved: list[tuple[int, Any]] = []
    learner.train(data, between=lambda: saved.append((learner.updates, copied(learner))))
    assert [updates for updates, _ in saved] == [1, 2]
    other = Learner(spec(seed=9))
    other.load_state_dict(saved[0][1])
    assert other.consumed == [1]
    rest = Batches(*(array[1:] if array.ndim > 1 else array for array in data))
    other.train(rest)
    for name, value in learner.state.critic.state_dict().items():
        assert torch.equal(value, other.state.critic.state_dict()[name]), name


def copied(learner: Learner) -> dict[str, Any]:
    buffer = io.BytesIO()
    torch.save(learner.state_dict(), buffer)
    buffer.seek(0)
    state: dict[str, Any] = torch.load(buffer, weights_only=True)
    return state


def test_a_resumed_learner_takes_the_rates_it_is_given() -> None:
    learner = Learner(spec())
    learner.train(batches(0))
    other = Learner(spec(settings=BRCSettings(learning_rate=1e-5, weight_decay=0.5)))
    other.load_state_dict(copied(learner))
    (group,) = other.state.critic_optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-5, 0.5)
    (group,) = other.state.temperature_optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-5, 0)


def test_noise_is_not_the_numbers_that_networks_came_from() -> None:
    learner = Learner(spec())
    noise = torch.randn(100, generator=learner.generator)
    assert not torch.equal(noise, torch.randn(100, generator=torch.Generator().manual_seed(1)))


def test_noise_of_a_checkpoint_from_another_kind_of_device_is_a_new_stream() -> None:
    saved = copied(Learner(spec())) | {"device": "cuda", "generator": torch.zeros(16, dtype=torch.uint8)}
    Learner(spec()).load_state_dict(saved)  # a CPU generator would refuse those 16 bytes
