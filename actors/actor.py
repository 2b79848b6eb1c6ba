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


class Assignment(NamedTuple):
    """What an actor of a benchmark, one of several, does: step these tasks, given by their indices in the run."""

    benchmark: str
    number: int
    tasks: tuple[int, ...]

    @property
    def name(self) -> str:
        return f"{self.benchmark}-{self.number}"


@dataclass(frozen=True, kw_only=True)
class ActorSpec:
    """What an actor is. `tasks` are (task index, task); each is stepped in `copies` copies, numbered over the whole
    fleet from `first_copy` on, which is what their seeds are made from. `index` is its number in the whole fleet.

    `incarnation` counts the lives of this name: a restarted actor begins new random streams and a new writer. `acting`
    says how it acts with what the learner publishes.
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

    @property
    def writer_name(self) -> str:
        return f"{self.name}.{self.incarnation}"


class Pool:
    """One task's environment with what follows its copies."""

    def __init__(self, spec: ActorSpec, position: int, environment: Environment, bad: deque[BadNumber]) -> None:
        self.index, self.task = spec.tasks[position]
        self.environment = environment
        self.rows = slice(position * spec.copies, (position + 1) * spec.copies)
        self.segments = SegmentBuilder(spec.copies, self.task, spec.action_size, spec.segment_length)
        self.episodes = EpisodeTracker(self.index, spec.copies, spec.discount, self.task.episode_limit)
        self.door = Door(self.index, environment, spec.first_copy + position * spec.copies, bad)
        self.inputs = environment.reset()

    def begin(self) -> None:
        """Have no copy begin with a bad number. Raises OnlyBadNumbers."""
        self.inputs = self.door.begun(self.inputs, np.zeros(self.environment.copies, bool))

    def record(self, actions: np.ndarray, step: Step) -> tuple[list[Episode], tuple[float, float] | None]:
        """Take in a step, but for what is no number; returns what `EpisodeTracker.append` does. Raises
        OnlyBadNumbers."""
        step, dropped = self.door.check(step)
        self.segments.append(self.inputs, actions, step)
        self.inputs = step.next_inputs
        ended = self.episodes.append(step)
        if len(dropped):
            self.segments.drop(dropped)
            self.episodes.drop(dropped)
        return ended


def make_environments(spec: ActorSpec, exact: bool = False) -> list[Environment]:
    """The environments of an actor, every copy with a seed of its own; `exact` as in make_environment."""
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
    """(rows, action) float32, uniform; `num_actions` (rows,) is 0 where they are not discrete.

    The dimensions that smaller tasks do not have hold noise too, as in the reference.
    """
    if num_actions[0]:
        return rng.integers(0, num_actions)[:, None].astype(np.float32)
    return rng.random((len(num_actions), action_size), dtype=np.float32) * 2.0 - 1.0


def room(tasks: Sequence[Task], rows: int, observation_size: int) -> np.ndarray:
    """For the observations of rows of these tasks, the flat ones as wide as the widest of the run."""
    shape = tasks[0].image or (observation_size,)
    return np.zeros((rows, *shape), tasks[0].observation_dtype)


class Actor:
    """Acts in all its pools with one policy call a step. While no policy is published it acts uniformly at random.
    What is no number does not reach replay: see `door`.

    That is the warm-up of the spec: the learner publishes its first policy when it makes its first update.
    """

    def __init__(
        self, spec: ActorSpec, environments: Sequence[Environment], writer: Writer, policies: PolicySource
    ) -> None:
        self.spec = spec
        self.writer = writer
        self.policies = policies
        self.bad: deque[BadNumber] = deque()  # as `ended` below
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
        self.ended: deque[Episode] = deque()  # appended by the loop, emptied by report: perhaps another thread
        self.return_extremes: dict[int, tuple[float, float]] = {}
        self.iterations = 0
        self.acted_at = 0.0
        self.seconds = {"act": 0.0, "step": 0.0, "record": 0.0, "push": 0.0}

    def step(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Step every copy once; pushes when a segment is full, which waits while replay asks to.

        Raises OnlyBadNumbers when an environment gives nothing else.
        """
        start = time.perf_counter()
        if not self.begun:
            for pool in self.pools:
                pool.begin()
            self.begun = True
        self._take_policy()
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
            self._push(stopped)  # asking only after it: a push may wait long, and policies get old meanwhile
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
            self.observations[pool.rows, : pool.inputs.shape[1]] = pool.inputs
        return self.policy.explore(self.observations, self.rng)

    def pull(self) -> None:
        """Ask for a newer policy; it is taken over now or at the first step that finds it there."""
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
        if not rows:  # all of it was of episodes that were dropped
            return
        push = Push(rows, self.return_extremes)
        self.return_extremes = {}
        self.writer.push(push, stopped)

    def finish(self, stopped: Callable[[], bool] = lambda: False) -> None:
        """Push what has been collected, full segments or not, and wait until replay has it."""
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
        """Everything but the environments and the policy, for a lock-step checkpoint; nothing may be in flight."""
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
        """What `state` returned. The environments must be where they were, and the caller hands over the policy."""
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
