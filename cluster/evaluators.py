"""The evaluators of a distributed run, as the coordinator sees them: asked, heard in order, replaced when they die."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.evaluator import Evaluation, merged
from actors.fleet import DEAD, MOST_DEATHS_IN_A_ROW, answered
from cluster.errors import RunFailed
from cluster.learner_group import LearnerGroup


@dataclass
class Asked:
    """An evaluation that was asked for and has not been told yet."""

    env_steps: int
    policy: str  # random or deterministic
    number: int
    answers: list[ray.ObjectRef] = field(default_factory=list)  # of all evaluators; none while it is to be asked again
    life: int = 0  # of the learner that was asked
    losses: int = 0


class EvaluatorGroup:
    """One evaluator a benchmark, made by `start`: each may have packages of its own, and none waits for the slowest.

    `pending` are those that a coordinator before this one had asked for; `tell(cause, env_steps)` hears of losses.
    """

    def __init__(
        self,
        start: Callable[[], list[ActorHandle]],
        learner: LearnerGroup,
        pending: list[tuple[int, str, int]],
        tell: Callable[[str, int], None],
    ) -> None:
        self.start = start
        self.tell = tell
        self.learner = learner
        self.evaluators = start()
        self.asked = [Asked(*one) for one in pending]

    @property
    def pending(self) -> list[tuple[int, str, int]]:
        """What a coordinator after this one is to ask again."""
        return [(asked.env_steps, asked.policy, asked.number) for asked in self.asked]

    def ask(self, env_steps: int, policy: str, number: int) -> None:
        """Ask for an evaluation of the random policy or the learner's."""
        self.asked.append(Asked(env_steps, policy, number))
        self._send(self.asked[-1])

    def _send(self, asked: Asked) -> None:
        """The policy passes from the learner to the evaluators directly."""
        message = None if asked.policy == "random" else self.learner.first.policy.remote()
        asked.answers = [evaluator.evaluate.remote(message, asked.number) for evaluator in self.evaluators]
        asked.life = self.learner.lives

    def collect(self, learner_was_lost: Callable[[], bool]) -> list[tuple[Evaluation, int]]:
        """Those that are done, in order, with the environment steps at which they were asked for; those that died with
        the evaluator or the learner are asked for again. Never waits."""
        found: list[tuple[Evaluation, int]] = []
        while self.asked:
            first = self.asked[0]
            if not first.answers:
                self._send(first)
            if not all(answered(answer) for answer in first.answers):
                break
            try:
                found.append((merged(ray.get(first.answers)), first.env_steps))
                self.asked.pop(0)
            except DEAD as error:  # before RayError: the death of what a task waits for is both
                self._lost(first, str(error))
                break
            except RayError as error:
                if first.life == self.learner.lives and not learner_was_lost():
                    raise RunFailed(f"the evaluation at {first.env_steps} steps failed: {error}") from error
                self._lost(first, str(error))
                break
        return found

    def _lost(self, first: Asked, cause: str) -> None:
        """Start other evaluators, whichever side died; what was asked of these is asked again at the next look."""
        self.tell(cause, first.env_steps)
        first.losses += 1
        if first.losses >= MOST_DEATHS_IN_A_ROW:
            raise RunFailed(f"the evaluation at {first.env_steps} steps was lost {first.losses} times: {cause}")
        for evaluator in self.evaluators:
            ray.kill(evaluator)
        self.evaluators = self.start()
        for asked in self.asked:
            asked.answers = []

    def learner_replaced(self) -> None:
        """What was lost so far was the fault of the learner before."""
        for asked in self.asked:
            asked.losses = 0
