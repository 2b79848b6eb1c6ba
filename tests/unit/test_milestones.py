"""Tests of milestones: when evaluations and checkpoints are due, by steps and, before the first, by updates."""

from __future__ import annotations

from dataclasses import replace

from cluster.run.milestones import Milestones
from tests.support import tiny


def made(offline: int = 0, interval: int = 100) -> Milestones:
    base = tiny.config(steps=1000, checkpoint_interval=interval)
    return Milestones(replace(base, learner=replace(base.learner, offline_updates=offline)))


def test_checkpoints_are_due_once_an_interval_and_not_at_the_end() -> None:
    milestones = made()
    due = [steps for steps in range(0, 1001, 10) if milestones.checkpoint_due(steps)]
    assert due == list(range(100, 1000, 100))


def test_before_the_first_step_checkpoints_are_due_by_updates() -> None:
    """A learner that is lost in the midst of them loses no more than an interval."""
    milestones = made(offline=250)
    due = [updates for updates in range(0, 301, 10) if milestones.checkpoint_due(0, updates)]
    assert due == [100, 200, 250]
    assert not milestones.checkpoint_due(50, 400) and milestones.checkpoint_due(100, 450)
    resumed = made(offline=250)
    resumed.begin(0, 120)
    assert [updates for updates in range(120, 301, 10) if resumed.checkpoint_due(0, updates)] == [200, 250]
    done = made(offline=250)
    done.begin(0, 250)
    assert not any(done.checkpoint_due(0, updates) for updates in range(260, 400, 10))


def test_an_interval_of_0_is_never_due() -> None:
    assert not any(made(offline=250, interval=0).checkpoint_due(0, updates) for updates in range(0, 400, 10))
