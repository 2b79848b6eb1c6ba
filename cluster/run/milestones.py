"""When a run evaluates and when it writes a checkpoint on its way."""

from __future__ import annotations


class Milestones:
    """Environment steps at which something is due. An interval of 0 is never; what is due at the very end, after
    `steps`, is the driver's."""

    def __init__(self, steps: int, evaluation_interval: int, checkpoint_interval: int) -> None:
        self.steps = steps
        self.evaluation_interval = evaluation_interval
        self.checkpoint_interval = checkpoint_interval
        self.begin(0)

    def begin(self, env_steps: int) -> None:
        """Expect those that follow so many steps."""
        self.next_evaluation = next_multiple(env_steps, self.evaluation_interval)
        self.next_checkpoint = next_multiple(env_steps, self.checkpoint_interval)

    def evaluation_due(self, env_steps: int) -> bool:
        """Whether one is due now; the next is an interval later."""
        if env_steps < self.next_evaluation or env_steps >= self.steps:
            return False
        self.next_evaluation = next_multiple(env_steps, self.evaluation_interval)
        return True

    def checkpoint_due(self, env_steps: int) -> bool:
        """Likewise."""
        if env_steps < self.next_checkpoint or env_steps >= self.steps:
            return False
        self.next_checkpoint = next_multiple(env_steps, self.checkpoint_interval)
        return True

    def checkpoint_soon(self) -> None:
        """Have the next checkpoint at once, if there are any on the way: the last one came to nothing."""
        if self.checkpoint_interval:
            self.next_checkpoint = 0


def next_multiple(done: int, interval: int) -> int:
    """The first multiple of `interval` beyond `done`; never, for interval 0."""
    return (done // interval + 1) * interval if interval else 1 << 62
