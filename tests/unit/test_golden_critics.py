"""Parity of other critics and their agents with their authors' code (tests/golden/critics/README.md)."""

from __future__ import annotations

import pytest
import torch

from learner.agents import brc
from tests.support import golden_critics as golden
from tests.support.golden_vectors import batch


@pytest.mark.parametrize("name", golden.SETTINGS)
def test_updates_in_float64(name: str) -> None:
    arrays, config = golden.load(name), golden.SETTINGS[name]
    state = golden.state(arrays, "step0/", config)
    for index in range(sum(key.startswith("batch") and key.endswith("/rewards") for key in arrays)):
        rows = batch(arrays, f"batch{index}/")
        following, moves = arrays[f"noise_next{index}"], index % config.policy_interval == 0
        # FlashSAC draws for next states too, which its loss does not use, and draws none where the policy rests.
        current = arrays.get(f"noise_cur{index}", following)[: len(following)]
        metrics = brc.update(state, rows, torch.stack([following, current]), config, moves=moves)
        expected = {"critic_loss": "critic_loss"} | ({"policy_loss": "actor_loss"} if moves else {})
        for ours, theirs in expected.items():
            torch.testing.assert_close(metrics[ours], arrays[f"info{index}/{theirs}"], atol=1e-9, rtol=1e-9)
        if f"step{index + 1}/log_temp" in arrays:
            same(state, golden.state(arrays, f"step{index + 1}/", config))


def same(found: brc.BRCState, expected: brc.BRCState) -> None:
    for part in ("critic", "target", "policy"):
        module, other = getattr(found, part), getattr(expected, part)
        for key, value in module.state_dict().items():
            if part == "target" and key.endswith((".mean", ".variance")):
                continue
            torch.testing.assert_close(value, other.state_dict()[key], atol=2e-9, rtol=0, msg=f"{part} {key}")
    torch.testing.assert_close(found.log_temperature, expected.log_temperature, atol=1e-9, rtol=0)
