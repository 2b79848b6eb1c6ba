"""The learner as a whole: normaliser, exact resume, refusal of foreign checkpoints, non-finite losses."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from learner.agents import brc
from learner.agents.reward_normalizer import RewardNormalizer
from learner.config import LearnerConfig
from learner.learner import Learner, check_room, make_learner
from learner.networks.description import Dense, Network
from learner.networks.layers import Products
from learner.networks.modules import Critic
from learner.networks.spec import NetworkSpec
from learner.networks.torch_network import TorchNetwork, chains
from learner.nonfinite import NonFinite
from learner.scale.memory import critic_parameters
from learner.scale.precision import Precision, parameter_dtype, set_products
from learner.spec import ALONE, LearnerSpec
from learner.state import dcp
from learner.state.checkpoint import CheckpointError, Checkpoints
from learner.trained import finish
from replay.store.rows import Batches
from tests.support import golden_vectors as golden
from tests.support.specs import learner_spec


def spec(**changes: Any) -> LearnerSpec:
    values: dict[str, Any] = {
        "networks": NetworkSpec(observation_size=5, action_size=2, num_tasks=3, width=16, policy_width=16),
        "batch_size": 8,
        "seed": 1,
    }
    return learner_spec(**(values | changes))


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
    state = golden.continuous(learner)
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
    normalizer.merge(arrays["min_after"][0], arrays["max_after"][0])  # extremes only widen: these have no effect
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


@pytest.mark.parametrize("precision", ["float64", "float32", "bf16"])
def test_resume_is_bit_identical(tmp_path: Path, precision: Precision) -> None:
    unbroken, first = Learner(spec(precision=precision)), Learner(spec(precision=precision))
    for step in range(4):
        unbroken.train(batches(step))
    for step in range(2):
        first.train(batches(step))
    save(first, tmp_path)
    resumed = Learner(spec(precision=precision, seed=99))
    dcp.load(resumed, str(tmp_path))
    for step in range(2, 4):
        resumed.train(batches(step))
    assert_equal(unbroken, resumed)
    assert (resumed.updates, resumed.consumed) == (12, [12])
    table = resumed.state.table()
    assert table is not None and table.dtype == parameter_dtype(precision)


def save(learner: Learner, folder: Path) -> None:
    dcp.save_counters(learner, str(folder))
    dcp.save(learner, str(folder)).result()


def test_equal_seeds_give_equal_learners_and_others_differ() -> None:
    one, other, third = Learner(spec()), Learner(spec()), Learner(spec(seed=2))
    assert_equal(one, other)
    assert not torch.equal(parameters(one)[0], parameters(third)[0])
    for mine, theirs in zip(*(one.state.modules()[name].parameters() for name in ("critic", "target")), strict=True):
        assert torch.equal(mine, theirs), "the target starts as a copy"
    first, second = (one.state.modules()["critic"].get_parameter(f"heads.{head}.input.weight") for head in range(2))
    assert not torch.equal(first, second)


def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path) -> None:
    save(Learner(spec()), tmp_path)
    (tmp_path / "__0_0.distcp").write_bytes(b"")
    with pytest.raises(OSError, match=r"cannot be read: rank 0: "):
        dcp.load(Learner(spec()), str(tmp_path))


def test_another_shape_is_refused_by_name() -> None:
    saved = Learner(spec()).counters()
    other = Learner(
        spec(networks=NetworkSpec(observation_size=5, action_size=2, num_tasks=3, width=32, policy_width=16))
    )
    with pytest.raises(ValueError, match=r"'width': \(16, 32\)"):
        other.load_counters(saved)


def test_a_loss_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    """The error also comes when the batches that led to it cannot be written."""
    learner = Learner(spec())
    poisoned = batches(0)
    poisoned.observations[...] = np.nan
    trained = learner.train(poisoned)
    with pytest.raises(NonFinite, match="critic_loss became nan at update 3"):
        trained.finish()
    with pytest.raises(NonFinite, match=r"critic_loss became nan .* there could not be written \(.*No such file"):
        finish(trained, poisoned, tmp_path / "nowhere")


def test_diagnostics_are_measured_when_asked_for() -> None:
    learner = Learner(spec())
    assert set(learner.train(batches(0)).finish()) == {"critic_loss", "policy_loss", "entropy", "temperature", "q_mean"}
    metrics = learner.train(batches(1), diagnostics=True).finish()
    assert {"critic_gradient_norm", "policy_parameter_norm", "target_mean"} <= set(metrics)


@pytest.mark.parametrize("tasks", [1, 3])
def test_parameters_are_counted_without_making_them(tasks: int) -> None:
    networks = NetworkSpec(observation_size=5, action_size=2, num_tasks=tasks, width=16, depth=3, heads=3, num_bins=11)
    assert critic_parameters(networks) == sum(p.numel() for p in Critic(networks).parameters())


def test_single_task_has_no_embedding() -> None:
    networks = NetworkSpec(observation_size=5, action_size=2, num_tasks=1, width=16, policy_width=16)
    learner = Learner(spec(networks=networks))
    one = batches(0)
    one.task_ids[...] = 0
    learner.train(one._replace(return_minimum=one.return_minimum[:1], return_maximum=one.return_maximum[:1]))
    assert learner.state.table() is None
    assert "task_embeddings" not in dict(learner.policy().layout)


def test_embedding_norm_is_a_choice() -> None:
    for norm, order in (("l2", 2), ("l1", 1)):
        table = Critic(
            NetworkSpec(observation_size=5, action_size=2, num_tasks=3, width=16, embedding_norm=norm)
        ).embedding_table()
        assert table is not None
        torch.testing.assert_close(torch.linalg.vector_norm(table, order, dim=-1), torch.ones(3))


def test_initialisation_is_orthogonal_with_the_reference_gains() -> None:
    learner = Learner(spec())
    policy = golden.continuous(learner).policy
    hidden = policy.get_parameter("trunk.blocks.0.first.weight").detach()
    torch.testing.assert_close(hidden @ hidden.T, 2.0 * torch.eye(16), atol=1e-5, rtol=0)
    log_std = policy.get_parameter("log_std.weight").detach()
    torch.testing.assert_close(log_std @ log_std.T, torch.eye(2), atol=1e-5, rtol=0)
    assert not policy.get_parameter("mean.bias").any()


def test_target_entropy_is_half_the_widest_action() -> None:
    assert brc.target_entropy(NetworkSpec(observation_size=1, action_size=38, num_tasks=1), LearnerConfig()) == -19.0


def write(checkpoints: Checkpoints, steps: int, keep: int = 2) -> str:
    name = checkpoints.begin(steps)
    for needed in ("learner.json", ".metadata"):
        with checkpoints.open(name, needed, "wb") as file:
            file.write(bytes(1000))
    checkpoints.commit(name, {"env_steps": steps}, keep)
    return name


@pytest.mark.parametrize("url", ["", "memory://checkpoints"])
def test_checkpoints_are_complete_or_absent_and_old_ones_go(tmp_path: Path, url: str) -> None:
    checkpoints = Checkpoints(url + str(tmp_path))
    checkpoints.begin(50)
    assert checkpoints.names() == [], "begun is not there yet"
    for steps in (100, 200, 300):
        write(checkpoints, steps)
    assert checkpoints.names() == ["000000000200", "000000000300"]
    manifest = checkpoints.manifest(checkpoints.names()[-1])
    checkpoints.verify(checkpoints.names()[-1])
    assert manifest["env_steps"] == 300
    assert sorted(checkpoints.files.ls(checkpoints.root, detail=False))[0].endswith("200"), "the unfinished is gone"


def test_what_is_not_all_there_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    name = checkpoints.begin(100)
    with pytest.raises(OSError, match=r"lacks learner.json"):
        checkpoints.commit(name, {}, keep=1)
    assert checkpoints.names() == []


def test_a_second_checkpoint_of_a_step_is_newer_than_the_first(tmp_path: Path) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    names = [write(checkpoints, 300, keep=3) for _ in range(3)]
    write(checkpoints, 200, keep=9)
    assert checkpoints.names() == ["000000000200", *names]


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "manifest"])
def test_a_damaged_checkpoint_is_named_and_left_alone(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(str(tmp_path))
    write(checkpoints, 100)
    newest = write(checkpoints, 200)
    file = tmp_path / newest / ("manifest.json" if damage == "manifest" else "learner.json")
    if damage == "flip":
        file.write_bytes(b"\1" + file.read_bytes()[1:])
    elif damage == "remove":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=rf"{file.name}.*move .* away to resume from 000000000100"):
        checkpoints.verify(newest)
    assert checkpoints.names() == ["000000000100", newest]


def test_what_is_asked_between_updates_is_of_then() -> None:
    learner, other = Learner(spec()), Learner(spec())
    asked: list[Any] = []
    learner.train(batches(0, count=3), between=lambda: asked.append(learner.policy()))
    other.train(batches(0, count=3).first(2))
    assert [message.version for message in asked] == [1, 2]
    np.testing.assert_array_equal(asked[1].parameters, other.policy().parameters)


def test_a_resumed_learner_takes_the_rates_it_is_given(tmp_path: Path) -> None:
    learner = Learner(spec())
    learner.train(batches(0))
    save(learner, tmp_path)
    other = Learner(spec(learning_rate=1e-5, weight_decay=0.5))
    dcp.load(other, str(tmp_path))
    optimizers = other.state.optimizers()
    assert (optimizers["critic"].learning_rate, optimizers["critic"].weight_decay) == (1e-5, 0.5)
    assert (optimizers["temperature"].learning_rate, optimizers["temperature"].weight_decay) == (1e-5, 0)


def test_noise_is_not_the_numbers_that_networks_came_from() -> None:
    learner = Learner(spec())
    noise = torch.randn(100, generator=learner.generator)
    assert not torch.equal(noise, torch.randn(100, generator=torch.Generator().manual_seed(1)))


def test_noise_of_a_checkpoint_from_another_kind_of_device_is_a_new_stream() -> None:
    saved = Learner(spec()).counters() | {"device": "cuda", "generator": bytes(16).hex()}
    Learner(spec()).load_counters(saved)  # a CPU generator would refuse these 16 bytes


def test_bfloat16_is_for_products_only() -> None:
    """Parameters, gradients, optimisers and losses stay float32, and the losses are near those of float32."""
    exact, mixed = Learner(spec()), Learner(spec(precision="bf16"))
    theirs, ours = (learner.train(batches(0)).finish() for learner in (exact, mixed))
    state = mixed.state
    for parameter in parameters(mixed):
        assert parameter.dtype == torch.float32
    for entry in state.optimizers()["critic"].state.values():
        assert entry["exp_avg"].dtype == torch.float32
    assert all(ours[name] == pytest.approx(theirs[name], rel=0.05, abs=0.02) for name in ours), (ours, theirs)
    assert any(not torch.equal(one, other) for one, other in zip(parameters(exact), parameters(mixed), strict=True))


def test_rounded_factors_are_what_hardware_multiplies() -> None:
    """Compare with torch's own bfloat16. Another order of sums rounds a few numbers differently; the rest are equal."""
    network = Network((("observation", (64,)),), (Dense("only", 32),))
    torch.manual_seed(0)
    exact, inputs, weights = TorchNetwork(network), torch.randn(256, 64), torch.randn(256, 32)
    found = []
    kinds: tuple[Products, ...] = ("exact", "rounded", "bfloat16")
    for products in kinds:
        layer, x = copy.deepcopy(exact), inputs.clone().requires_grad_()
        (chain,) = chains(layer)
        chain.products = products
        outputs = layer({"observation": x})
        (outputs * weights).sum().backward()
        found.append([outputs, x.grad, layer.get_parameter("only.weight").grad])
    for name, one, ours, theirs in zip(("outputs", "inputs", "weights"), *found, strict=True):
        assert (ours == theirs).float().mean() > 0.97, name
        assert 1e-4 < (ours - one).norm() / one.norm() < 0.01, name


def test_a_learner_waits_for_the_memory_of_its_predecessor(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver frees the memory of a dead process a while after its end. A GPU that is too small is asked once."""
    wanted = replace(spec(), config=replace(spec().config, device="cuda"))
    answers = iter([(1000, 10**12), (1000, 10**12), (10**11, 10**12)])
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: next(answers))
    check_room(wanted, ALONE)
    assert next(answers, None) is None
    answers = iter([(1000, 1000)])
    with pytest.raises(MemoryError, match=r"--learner\.width 16 needs .* and 1,000 of 1,000 are free"):
        check_room(wanted, ALONE)


def test_only_tf32_lets_a_gpu_round_the_factors_of_float32() -> None:
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    try:
        for precision, rounds in (("tf32", True), ("float32", False), ("bf16", False)):
            set_products(precision)  # type: ignore[arg-type]
            assert torch.backends.cudnn.allow_tf32 is rounds
            assert (torch.get_float32_matmul_precision() == "high") is rounds
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.allow_tf32 = before[1]


@pytest.mark.parametrize(("center", "spread"), [(100.0, 0.01), (5000.0, 1.0), (1.3, 1e-4), (9.81, 0.0)])
def test_observations_far_from_zero_are_normalised(center: float, spread: float) -> None:
    """The variance is not computed as the difference of two rounded squares, which may be negative."""
    networks = NetworkSpec(observation_size=39, action_size=2, num_tasks=3, width=16, normalize_observations=True)
    learner, rng = Learner(spec(networks=networks, batch_size=256)), np.random.default_rng(0)
    seen = [(center + spread * rng.standard_normal((4, 256, 39))).astype(np.float32) for _ in range(8)]
    for part in seen:
        for batch in part:
            learner._observe(torch.from_numpy(batch))
    (norm, *_) = learner.observed
    expected = np.concatenate(seen).reshape(-1, 39).astype(np.float64)
    mean, rows, begun = expected.mean(axis=0), len(expected), 1e-4  # it begins as if it had seen 1e-4 rows of mean 0
    variance = (rows * expected.var(axis=0) + begun + mean**2 * begun) / rows
    np.testing.assert_allclose(norm.mean.numpy(), mean, rtol=1e-5)
    np.testing.assert_allclose(norm.variance.numpy(), variance, rtol=0.01)
    assert torch.isfinite(norm(torch.from_numpy(seen[0][0]))).all()


def test_a_learner_is_made_of_options_alone() -> None:
    learner = make_learner(
        observation_size=5, action_size=2, num_tasks=3, width=32, heads=3, policy_width=16, loss="mse", batch_size=8
    )
    networks = learner.spec.networks
    assert (networks.width, networks.heads, networks.num_bins) == (32, 3, 1)
    assert np.isfinite(learner.train(batches(0)).finish()["critic_loss"])
