"""The actor loop: act, step every pool, cut segments, push them, pull newer policies."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from actors.backends.returned import Astray
from actors.benchmarks.benchmark import Task
from actors.closing import close_all, close_in_time
from actors.door import BadNumber, Door
from actors.environments import Environment, Step, copy_seed, make_environment
from actors.episodes import Episode, EpisodeTracker
from actors.policies.policy import Policy, make_policy
from actors.reports import ActorReport
from actors.segments import SegmentBuilder
from learner.agents.acting import Acting
from replay.client.writer import Writer
from replay.policy_store import PolicyMessage, PolicySource
from replay.store.rows import Push, Rows

WAIT_S = 0.5  # between two questions for the first policy: hundreds of actors may ask the one store


class Assignment(NamedTuple):
    """The work of actor `number` of a benchmark: to step the tasks with these indices in the run."""

    benchmark: str
    number: int
    tasks: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.benchmark}-{self.number}"


@dataclass(frozen=True, kw_only=True)
class ActorSpec:
    """Settings of an actor. `index` is its number in the whole fleet. `tasks` are pairs (task index, task).

    Each task is stepped in `copies` copies. Copies are numbered over the whole fleet; those of this actor begin at
    `first_copy`. The number of a copy determines its seed.

    `incarnation` counts the starts of an actor of this name: a restarted actor begins new random streams and a new
    writer. `acting` says how the actor acts with a published policy.
    """

    name: str
    index: int
    tasks: tuple[tuple[int, Task], ...]
    copies: int
    first_copy: int
    observation_size: int  # of the widest task
    action_size: int  # of the widest task
    segment_length: int
    discount: float
    seed: int
    acting: Acting
    backend: str = "envpool"
    threads: int = 1
    incarnation: int = 0
    measures_returns: bool = False  # whether pushes have moments of running returns
    waits: bool = False  # whether to act only with a policy: never at random

    @property
    def writer_name(self) -> str:
        return f"{self.name}.{self.incarnation}"


class Pool:
    """The environment of one task, with the segments, the episodes and the door of its copies."""

    def __init__(self, spec: ActorSpec, position: int, environment: Environment, bad: deque[BadNumber]) -> None:
        self.index, self.task = spec.tasks[position]
        self.environment = environment
        self.rows = slice(position * spec.copies, (position + 1) * spec.copies)
        self.segments = SegmentBuilder(spec.copies, self.task, spec.action_size, spec.segment_length)
        self.episodes = EpisodeTracker(
            self.index, spec.copies, spec.discount, self.task.episode_limit, spec.measures_returns
        )
        self.door = Door(self.index, environment, spec.first_copy + position * spec.copies, bad)
        self.inputs = environment.reset()

    def begin(self) -> None:
        """Reset every copy whose first observation holds a bad number, until none does. Raises OnlyBadNumbers."""
        self.inputs = self.door.begun(self.inputs, np.zeros(self.environment.copies, bool))

    def record(self, actions: np.ndarray, step: Step) -> tuple[list[Episode], tuple[float, float] | None]:
        """Record a step, and drop the episodes in which it has a bad number. Return what `EpisodeTracker.append`
        returns. Raises OnlyBadNumbers."""
        step, dropped = self.door.check(step)
        self.segments.append(self.inputs, actions, step)
        self.inputs = step.next_inputs
        ended = self.episodes.append(step)
        if len(dropped):
            self.segments.drop(dropped)
            self.episodes.drop(dropped)
        return ended


def make_environments(spec: ActorSpec, exact: bool = False) -> list[Environment]:
    """Make the environments of an actor, with a different seed for every copy; `exact` is as in make_environment."""
    environments: list[Environment] = []
    try:
        for position, (_, task) in enumerate(spec.tasks):
            first = spec.first_copy + position * spec.copies
            seeds = [copy_seed(spec.seed, spec.incarnation, first + copy) for copy in range(spec.copies)]
            environments.append(make_environment(spec.backend, task, seeds, spec.threads, exact))
    except BaseException:
        close_in_time(environments)
        raise
    return environments


def random_actions(rng: np.random.Generator, num_actions: np.ndarray, action_size: int) -> np.ndarray:
    """Return uniformly random actions (rows, action) float32; `num_actions` (rows,) is 0 for continuous actions.

    Dimensions beyond a task's own action size hold noise too, as in the reference.
    """
    if num_actions[0]:
        return rng.integers(0, num_actions)[:, None].astype(np.float32)
    return rng.random((len(num_actions), action_size), dtype=np.float32) * 2.0 - 1.0


def room(tasks: Sequence[Task], rows: int, observation_size: int) -> np.ndarray:
    """Return zeros with room for the observations of `rows` rows. Flat observations are as wide as the run's widest."""
    shape = tasks[0].image or (observation_size,)
    return np.zeros((rows, *shape), tasks[0].observation_dtype)


def place(inputs: np.ndarray, task: Task, observations: np.ndarray, rows: slice) -> None:
    """Copy what a policy sees of the inputs of a task's copies to rows of `observations` (all rows, *shape)."""
    seen = inputs.shape[1] - task.privileged_size
    observations[rows, :seen] = inputs[:, :seen]


class Actor:
    """Acts in all its pools with one policy call a step. Bad numbers do not reach replay: see `door`.

    It acts uniformly at random until the first policy is published. This is the warm-up of the spec: the learner
    publishes its first policy when it makes its first update. An actor that `waits` makes no step before that.
    """

    def __init__(
        self, spec: ActorSpec, environments: Sequence[Environment], writer: Writer, policies: PolicySource
    ) -> None:
        self.spec = spec
        self.writer = writer
        self.policies = policies
        self.bad: deque[BadNumber] = deque()  # emptied by `report`, like `ended` below
        self.pools = [Pool(spec, position, made, self.bad) for position, made in enumerate(environments)]
        writer.serve(pool.index for pool in self.pools)
        self.begun = False
        self.message: PolicyMessage | None = None
        self.policy: Policy | None = None
        tasks = [task for _, task in spec.tasks]
        self.row_tasks = np.repeat([pool.index for pool in self.pools], spec.copies)
        self.num_actions = np.repeat([task.num_actions for task in tasks], spec.copies)
        self.observations = room(tasks, len(self.row_tasks), spec.observation_size)
        self.rng = np.random.default_rng([spec.seed, spec.index, spec.incarnation])
        self.ended: deque[Episode] = deque()  # filled by the loop, emptied by `report`, perhaps in another thread
        self.return_extremes: dict[int, tuple[float, float]] = {}
        self.iterations = 0
        self.acted_at = 0.0
        self.seconds = {"act": 0.0, "step": 0.0, "record": 0.0, "push": 0.0}

    def step(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Step every copy once. Push when a segment is full; the push waits while replay asks for that.

        Raises OnlyBadNumbers when a copy of an environment gives only bad numbers.
        """
        start = time.perf_counter()
        if not self.begun:
            for pool in self.pools:
                pool.begin()
            self.begun = True
        self._take_policy()
        if self.policy is None and self.spec.waits:
            self.pull()
            time.sleep(WAIT_S)
            return
        self.acted_at = time.monotonic()
        actions = self._act()
        acted = time.perf_counter()
        for pool in self.pools:
            pool.environment.send(actions[pool.rows, : pool.task.action_size])
        steps = [pool.environment.recv() for pool in self.pools]
        stepped = time.perf_counter()
        for pool, step in zip(self.pools, steps, strict=True):
            episodes, extremes = pool.record(actions[pool.rows], step)
            if extremes is not None:
                self.ended.extend(episodes)
                known = self.return_extremes.get(pool.index, extremes)
                self.return_extremes[pool.index] = (min(known[0], extremes[0]), max(known[1], extremes[1]))
        self.iterations += 1
        recorded = time.perf_counter()
        if self.pools[0].segments.full:
            self._push(stopped)  # pull after the push: a push may wait long, and the policy would get old meanwhile
            self.pull()
        now = time.perf_counter()
        for name, duration in zip(
            self.seconds, (acted - start, stepped - acted, recorded - stepped, now - recorded), strict=True
        ):
            self.seconds[name] += duration

    def _act(self) -> np.ndarray:
        if self.policy is None:
            return random_actions(self.rng, self.num_actions, self.spec.action_size)
        for pool in self.pools:
            place(pool.inputs, pool.task, self.observations, pool.rows)
        return self.policy.explore(self.observations, self.rng)

    def pull(self) -> None:
        """Ask for a newer policy. It is used now if it is there, or from the first step that finds it."""
        self.policies.ask(-1 if self.policy is None else self.policy.version)
        self._take_policy()

    def _take_policy(self) -> None:
        message = self.policies.poll()
        if message is not None:
            self.use(message)

    def use(self, message: PolicyMessage) -> None:
        """Act with this policy from now on."""
        self.message = message
        self.policy = make_policy(self.spec.acting, message, self.row_tasks)

    def _push(self, stopped: Callable[[], bool]) -> None:
        taken: dict[int, Rows] = {pool.index: pool.segments.take(pool.inputs) for pool in self.pools}
        rows = {task: found for task, found in taken.items() if len(found.flags)}
        if not rows:  # all their episodes were dropped
            return
        measured = {pool.index: pool.episodes.take_moments() for pool in self.pools}
        push = Push(rows, self.return_extremes, {task: found for task, found in measured.items() if found is not None})
        self.return_extremes = {}
        self.writer.push(push, stopped)

    def finish(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Push all collected rows, also those of segments that are not full, and wait until replay has them."""
        if self.pools[0].segments.steps:
            self._push(stopped)
        self.writer.flush(stopped)

    def report(self) -> ActorReport:
        ended = [self.ended.popleft() for _ in range(len(self.ended))]
        return ActorReport(
            ended,
            self.iterations,
            self.iterations * len(self.row_tasks),
            -1 if self.policy is None else self.policy.version,
            0.0 if self.policy is None else max(0.0, self.acted_at - self.policy.published_at),
            dict(self.seconds),
            self.writer.stats(),
            self.writer.finished,
            bad=[self.bad.popleft() for _ in range(len(self.bad))],
        )

    def state(self) -> dict[str, Any]:
        """Return all state but the environments and the policy, for a lock-step checkpoint. No push may be in
        flight."""
        return {
            "pools": [
                {"segments": pool.segments.state(), "episodes": pool.episodes.state(), "inputs": pool.inputs}
                for pool in self.pools
            ],
            "rng": self.rng.bit_generator.state,
            "iterations": self.iterations,
            "return_extremes": dict(self.return_extremes),
            "writer": self.writer.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned. The environments must be in their state of then; the caller sets the policy.

        Raises Astray if an environment shows another observation than the saved one.
        """
        for pool, saved in zip(self.pools, state["pools"], strict=True):
            pool.segments.load_state(saved["segments"])
            pool.episodes.load_state(saved["episodes"])
            if not np.array_equal(pool.inputs, saved["inputs"]):
                raise Astray(
                    f"{pool.task.name}: replaying its actions did not lead back to the saved observation, so the run "
                    "cannot go on exactly; go on with --execution distributed"
                )
        self.rng.bit_generator.state = state["rng"]
        self.iterations = state["iterations"]
        self.return_extremes = dict(state["return_extremes"])
        self.writer.load_state(state["writer"])

    def close(self) -> None:
        close_all(pool.environment for pool in self.pools)
