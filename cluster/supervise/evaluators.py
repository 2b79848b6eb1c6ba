"""Evaluators of a distributed run as the coordinator handles them: ask, hear in order, replace when they die."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil
import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError

from actors.causes import Cause
from actors.deaths import MOST_DEATHS_IN_A_ROW, answered, cause_of
from actors.evaluator import Evaluation, merged
from actors.fleet import BUILD_TIMEOUT_S
from actors.process import EvaluatorReport
from cluster.supervise.learner_group import LearnerGroup

FETCH_S = 10.0  # longest time to fetch a policy
MOST_WAITING = 3  # most evaluations that may wait when another is asked for


@dataclass(frozen=True)
class Patience:
    """Limit on silence: a benchmark's actors may take `deadline_s` seconds for a step of `copies` copies."""

    deadline_s: float
    copies: int

    def most(self, report: EvaluatorReport | None) -> float:
        """Return the seconds that an evaluator may be silent. Without a report it still makes environments."""
        if report is None or report.making:
            return BUILD_TIMEOUT_S
        return self.deadline_s * math.ceil(report.copies / self.copies)


@dataclass
class Asked:
    """An evaluation that was asked for and has no result yet."""

    env_steps: int
    policy: str  # random or deterministic
    number: int
    message: ray.ObjectRef | None = None  # the learner's policy
    life: int = 0  # life of the learner that was asked for the policy
    answers: dict[str, ray.ObjectRef] = field(default_factory=dict)  # by benchmark that was asked
    losses: int = 0

    def is_policy_lost(self) -> bool:
        """Whether the policy cannot be fetched. The evaluator is not at fault then."""
        if self.message is None:
            return False
        try:
            ray.get(self.message, timeout=FETCH_S)
        except RayError:
            return True
        return False


class Seat:
    """Place of one evaluator, with its current process."""

    def __init__(self, handle: ActorHandle) -> None:
        self.handle = handle
        self.begun_at = time.monotonic()
        self.placed: ray.ObjectRef | None = handle.placed.remote()  # None once answered
        self.process: psutil.Process | None = None  # known if it is on this node
        self.asked: ray.ObjectRef | None = None
        self.asked_at = 0.0
        self.report: EvaluatorReport | None = None

    def kill(self) -> None:
        """End the process. A stopped process does not react to Ray, so it is killed directly if it is on this node."""
        ray.kill(self.handle)
        if self.process is not None:
            with suppress(psutil.NoSuchProcess):
                self.process.kill()

    def trouble(self, patience: Patience) -> tuple[Cause, str] | None:
        """Return why a living evaluator must be replaced, if it must. Its death shows in its answers instead."""
        now = time.monotonic()
        try:
            if self.placed is not None:
                if answered(self.placed):
                    placed, self.placed = self.placed, None
                    node, pid = ray.get(placed)
                    if node == ray.get_runtime_context().get_node_id():
                        self.process = psutil.Process(pid)
                elif now - self.begun_at > BUILD_TIMEOUT_S:
                    return Cause.DIED, f"no node has had room for it for {BUILD_TIMEOUT_S:.0f} s"
            elif self.asked is None:
                self.asked, self.asked_at = self.handle.report.remote(), now
            elif answered(self.asked):
                asked, self.asked = self.asked, None
                self.report = ray.get(asked)
                if self.report.silent_s > patience.most(self.report):
                    return Cause.HUNG, silence(self.report)
            elif now - self.asked_at > patience.most(self.report):
                return Cause.HUNG, "it has not answered for its deadline"
        except (RayError, psutil.NoSuchProcess):
            self.asked = None
        return None


def silence(report: EvaluatorReport) -> str:
    if report.making:
        return f"its environments were not made within {BUILD_TIMEOUT_S:.0f} s"
    return f"it has not made a step for {report.silent_s:.0f} s"


class EvaluatorGroup:
    """One evaluator for each benchmark, made by `start`. Each may have its own packages, and does not wait for others.
    An evaluator that dies, hangs or fails is replaced; the new one repeats the evaluations without a result.

    `pending` holds evaluations that an earlier coordinator asked for. `tell_death(benchmark, cause, reason, env_steps)`
    is called for each replaced evaluator, `tell_loss(reason, env_steps)` for each evaluation that is given up.
    """

    def __init__(
        self,
        start: Callable[[str], ActorHandle],
        patience: dict[str, Patience],
        learner: LearnerGroup,
        pending: list[tuple[int, str, int]],
        tell_death: Callable[[str, Cause, str, int], None],
        tell_loss: Callable[[str, int], None],
    ) -> None:
        self.start = start
        self.patience = patience
        self.learner = learner
        self.tell_death = tell_death
        self.tell_loss = tell_loss
        self.seats = {benchmark: Seat(start(benchmark)) for benchmark in patience}
        self.asked = [Asked(*one) for one in pending]

    @property
    def pending(self) -> list[tuple[int, str, int]]:
        """Evaluations that a later coordinator must ask for again."""
        return [(asked.env_steps, asked.policy, asked.number) for asked in self.asked]

    def ask(self, env_steps: int, policy: str, number: int, last: bool = False) -> None:
        """Ask for an evaluation of the random policy or the learner's. While MOST_WAITING wait, take only the `last` of
        the run: evaluations that take longer than their interval would accumulate without end."""
        if len(self.asked) >= MOST_WAITING and not last:
            self.tell_loss(f"{len(self.asked)} before it are not made yet: raise --evaluation.interval", env_steps)
            return
        self.asked.append(Asked(env_steps, policy, number))
        self._send(self.asked[-1])

    def _send(self, asked: Asked) -> None:
        """Ask all evaluators that were not asked yet. The policy passes directly from learner to evaluators."""
        if asked.message is None and asked.policy != "random":
            asked.message, asked.life = self.learner.first.policy.remote(), self.learner.lives
        for benchmark, seat in self.seats.items():
            if benchmark not in asked.answers:
                asked.answers[benchmark] = seat.handle.evaluate.remote(asked.message, asked.number)

    def collect(self, learner_was_lost: Callable[[], bool]) -> list[tuple[Evaluation, int]]:
        """Return finished evaluations, in order, with the environment steps at which they were asked for. Ask again for
        evaluations that were lost with an evaluator or the learner; give up at the third loss. Do not wait for one."""
        found: list[tuple[Evaluation, int]] = []
        while self.asked:
            first = self.asked[0]
            for asked in self.asked:
                self._send(asked)
            parts = self._parts(first, learner_was_lost)
            if len(parts) < len(self.seats):
                break
            found.append((merged(parts), first.env_steps))
            self.asked.pop(0)
        return found

    def _parts(self, first: Asked, learner_was_lost: Callable[[], bool]) -> list[Evaluation]:
        """Return the parts of the evaluation that are ready, at most one for each benchmark."""
        parts = []
        for benchmark, seat in self.seats.items():
            answer = first.answers[benchmark]
            if not answered(answer):
                if trouble := seat.trouble(self.patience[benchmark]):
                    self._replace(benchmark, *trouble)
                    break
                continue
            try:
                parts.append(ray.get(answer))
            except RayError as error:
                if first.is_policy_lost():
                    self._ask_anew(first, str(error), learner_was_lost)
                else:
                    self._replace(benchmark, cause_of(error), str(error))
                break
        return parts

    def _replace(self, benchmark: str, cause: Cause, reason: str) -> None:
        """Start a new evaluator in its place. The new one repeats the evaluations without a result."""
        first = self.asked[0]
        self.tell_death(benchmark, cause, reason, first.env_steps)
        self.seats[benchmark].kill()
        self.seats[benchmark] = Seat(self.start(benchmark))
        for asked in self.asked:
            asked.answers.pop(benchmark, None)
        # A lost node is not counted as a fault of the evaluation.
        self._count(first, reason if cause is not Cause.NODE_LOST else "")

    def _ask_anew(self, first: Asked, reason: str, learner_was_lost: Callable[[], bool]) -> None:
        """Ask again for an evaluation whose policy is lost. A loss together with the learner is not counted."""
        by_itself = first.life == self.learner.lives and not learner_was_lost()
        first.message, first.answers = None, {}
        self._count(first, reason if by_itself else "")

    def _count(self, first: Asked, reason: str) -> None:
        """Count a loss unless `reason` is empty. Give the evaluation up after MOST_DEATHS_IN_A_ROW losses."""
        first.losses += bool(reason)
        if first.losses >= MOST_DEATHS_IN_A_ROW:
            self.asked.remove(first)
            at_last = reason.strip().splitlines()[-1]
            self.tell_loss(f"it was lost {first.losses} times, at last: {at_last}", first.env_steps)

    def give_up(self, reason: str) -> None:
        """Give up all evaluations that are not made yet."""
        for asked in self.asked:
            self.tell_loss(reason, asked.env_steps)
        self.asked = []
