"""Tests of `brc export`: an exported policy acts like the policy of the run, in a program without this project."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.numpy import load_file

from cluster.cli import main as cli
from cluster.cli.export import export
from cluster.preflight.validation import check
from learner.networks.modules import Critic, Policy
from learner.networks.spec import NetworkSpec
from learner.state.publishing import Outgoing
from tests.support import tiny
from tests.support.rows import manifest

TASKS = {1: ("dmc/cartpole-swingup",), 2: ("dmc/cartpole-swingup", "dmc/cheetah-run")}


@pytest.mark.parametrize("count", [1, 2])
def test_the_graph_acts_as_the_policy(tmp_path: Path, count: int) -> None:
    config = tiny.config(tasks=TASKS[count])
    plan = check(replace(config, learner=replace(config.learner, policy_width=24, policy_depth=2)))
    torch.manual_seed(0)
    spec = plan.networks
    policy, critic = Policy(spec), Critic(spec)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    message = Outgoing(policy, critic.embedding_table(), 7).message()
    paths = export(plan, message, manifest(env_steps=5, updates=7), tmp_path)
    assert sorted(path.name for path in paths) == ["example.py", "policy.json", "policy.onnx", "policy.safetensors"]
    observations = 3 * torch.randn(11, plan.observation_size)
    tasks = torch.arange(11) % count
    with torch.no_grad():
        mean, log_std = policy(observations, critic.embed(tasks))
    inputs = {"observation": observations.numpy(), "task": tasks.numpy()}
    session = onnxruntime.InferenceSession(tmp_path / "policy.onnx")
    used = {name: inputs[name] for name in (given.name for given in session.get_inputs())}
    action, means, log_stds = session.run(["action", "mean", "log_std"], used)
    np.testing.assert_allclose(action, torch.tanh(mean), atol=1e-5)
    np.testing.assert_allclose(means, mean, atol=1e-5)
    np.testing.assert_allclose(log_stds, log_std, atol=1e-5)
    tensors = load_file(tmp_path / "policy.safetensors")
    np.testing.assert_array_equal(tensors["mean.weight"], policy.get_parameter("mean.weight").detach())


def test_a_run_is_exported_and_its_example_runs_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = tiny.train(tmp_path, "a", "--steps=400", "--execution=serial")
    assert done.returncode == 0, done.stdout + done.stderr
    folder = tmp_path / "policy"
    assert cli.main(["export", "a", "--runs-folder", str(tmp_path / "runs"), "--folder", str(folder)]) == 0
    assert str(folder / "policy.onnx") in capsys.readouterr().out
    about = json.loads((folder / "policy.json").read_text())
    assert (about["env_steps"], about["updates"]) == (400, 25)
    assert about["tasks"][0]["observation"] == [{"key": "position", "size": 3}, {"key": "velocity", "size": 2}]
    example = subprocess.run(
        [sys.executable, "-I", "example.py"], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert example.returncode == 0, example.stderr
    name, value = example.stdout.replace("[", " ").replace("]", " ").split()
    assert name == "dmc/cartpole-swingup" and -1 <= float(value) <= 1


def test_the_example_scales_actions_to_the_bounds_of_their_task(tmp_path: Path) -> None:
    """Extreme actions reach the ends: of bounds of 1,000, of one-sided bounds and of whole numbers."""
    kinds = ("Newtons", "Switches")
    plan = check(tiny.config(tasks=tuple(f"gymnasium/tests.support.odd_envs_actions:{kind}-v0" for kind in kinds)))
    spec = NetworkSpec(
        observation_size=plan.observation_size, action_size=plan.action_size, num_tasks=2, width=16, policy_width=16
    )
    policy, critic = Policy(spec), Critic(spec)
    with torch.no_grad():
        policy.get_parameter("mean.weight").zero_()
        policy.get_parameter("mean.bias").fill_(30.0)
    message = Outgoing(policy, critic.embedding_table(), 0).message()
    export(plan, message, manifest(env_steps=5, updates=7), tmp_path)
    about = json.loads((tmp_path / "policy.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    newtons, switches = (task["action"] for task in about["tasks"])
    assert newtons["low"] == [-1000.0, 0.0] and newtons["high"] == [1000.0, None]
    assert newtons["least"] == [-1000.0, 0.0] and newtons["most"] == [1000.0, 2.0] and newtons["dtype"] == "float32"
    assert switches == {"dtype": "int64", "low": [0, 0], "high": [1, 1], "least": [0, 0], "most": [1, 1]}
    example = subprocess.run(
        [sys.executable, "-I", "example.py"], cwd=tmp_path, capture_output=True, text=True, timeout=60
    )
    assert example.returncode == 0, example.stderr
    found = [line.partition(" [")[2].rstrip("]").split() for line in example.stdout.splitlines()]
    assert [[float(number) for number in numbers] for numbers in found] == [[1000.0, 2.0], [1.0, 1.0]]
