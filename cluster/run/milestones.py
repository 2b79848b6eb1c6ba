"""Decides when a run evaluates and when it writes a checkpoint before its end."""

from __future__ import annotations

from cluster.config.schema import Config


class Milestones:
    """Environment steps at which an evaluation or a checkpoint is due. An interval of 0 means never. The driver itself
    makes the last ones, after `steps`. Before the first step, checkpoints are due by updates, and after the last of the
    offline ones."""

    def __init__(self, config: Config) -> None:
        self.steps = config.steps
        self.evaluation_interval = config.evaluation.interval
        self.checkpoint_interval = config.checkpoint_interval
        self.offline = config.learner.offline_updates if self.checkpoint_interval else 0
        self.begin(0)

    def begin(self, env_steps: int, updates: int = 0) -> None:
        """Set the next milestones to the first ones after `env_steps`, and before the first step after `updates`."""
        if updates >= self.offline:
            self.offline = 0  # they are made, and saved
        self.next_offline = min(self.offline, next_multiple(updates, self.checkpoint_interval))
        self.next_evaluation = next_multiple(env_steps, self.evaluation_interval)
        self.next_checkpoint = next_multiple(env_steps, self.checkpoint_interval)

    def evaluation_due(self, env_steps: int) -> bool:
        """Whether an evaluation is due now. If so, the next is due an interval later."""
        if env_steps < self.next_evaluation or env_steps >= self.steps:
            return False
        self.next_evaluation = next_multiple(env_steps, self.evaluation_interval)
        return True

    def checkpoint_due(self, env_steps: int, updates: int = 0) -> bool:
        """Whether a checkpoint is due now. If so, the next is due an interval later."""
        if not env_steps and self.offline and updates >= self.next_offline:
            self.offline = 0 if updates >= self.offline else self.offline
            self.next_offline = min(self.offline, next_multiple(updates, self.checkpoint_interval))
            return True
        if env_steps < self.next_checkpoint or env_steps >= self.steps:
            return False
        self.next_checkpoint = next_multiple(env_steps, self.checkpoint_interval)
        return True

    def checkpoint_soon(self) -> None:
        """Make a checkpoint due at once, unless the interval is 0: the last checkpoint failed."""
        if self.checkpoint_interval:
            self.next_checkpoint = 0


def next_multiple(done: int, interval: int) -> int:
    """Return the first multiple of `interval` beyond `done`; for interval 0, a number that no run reaches."""
    return (done // interval + 1) * interval if interval else 1 << 62
