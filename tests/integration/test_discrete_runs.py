"""Tests of runs of the discrete agent: it learns, and a resumed run ends like an unbroken one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from actors.benchmarks import atari
from cluster.config.schema import AtariConfig, Config, EvaluationConfig, ExplorationConfig
from dashboards.sinks import records
from tests.integration.test_serial import StopAt, run
from tests.support import tiny


def configuration(folder: Path, name: str, **changes: Any) -> Config:
    base = tiny.config(runs_folder=str(folder), name=name)
    learner = replace(base.learner, n_step=3, learning_rate=1e-3, batch_size=64, width=64, updates_per_step=1.0)
    values: dict[str, Any] = {
        "tasks": ("gymnasium/CartPole-v1", "gymnasium/Acrobot-v1"),
        "steps": 2000,
        "learner": learner,
        "exploration": ExplorationConfig(0.02, 1000),
        "evaluation": EvaluationConfig(0, 5),
    }
    return replace(base, **(values | changes))


def test_one_agent_learns_cartpole_beside_another_task(tmp_path: Path) -> None:
    """CartPole is learned: random play lasts 20 steps. Acrobot, of other actions and sizes, is in the same batches."""
    made = run(configuration(tmp_path, "learns"))
    before, *_, after = records.read(made.session.folder.path / "eval.jsonl")
    assert before["policy"] == "random"
    lengths = [row["return"]["gymnasium/CartPole-v1"] for row in (before, after)]
    assert lengths[0] < 50 and lengths[1] > 100


def test_a_serial_run_stopped_and_resumed_ends_like_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The runs end bit-identical, with exploration, and with each frame once in replay."""
    monkeypatch.setattr(atari, "FRAMES_OF_AN_EPISODE", 4 * 25)
    game = {"tasks": ("atari/pong",), "steps": 60, "atari": AtariConfig(stack=3, sticky=0.0)}
    whole, stopped = (small(configuration(tmp_path, name, **game)) for name in ("whole", "stopped"))
    expected = run(whole)
    run(stopped, StopAt(50))
    made = run(replace(stopped, resume=True))
    for name, module in made.learner.state.modules().items():
        theirs = expected.learner.state.modules()[name]
        assert all(torch.equal(one, two) for one, two in zip(module.parameters(), theirs.parameters(), strict=True))
    assert made.learner.updates == 20


def small(config: Config) -> Config:
    """Return a smaller configuration for games, because convolutions are slow."""
    learner = replace(config.learner, batch_size=8, width=16, updates_per_step=1.0)
    return replace(
        config,
        learner=learner,
        actors=replace(config.actors, copies=1),
        replay=replace(config.replay, capacity=2000, warmup=40, segment_length=10),
        evaluation=EvaluationConfig(0, 1),
    )
