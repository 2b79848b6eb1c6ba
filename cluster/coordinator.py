"""The driver of a distributed run: starts the parts in order, keeps them alive, stops them at the budget.

Order: replay shards, policy store, learner, evaluator and actors are created together; actors collect once the learner
is ready. While it runs the coordinator only asks for reports and acts on milestones: no transition, batch or policy
passes through it.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError, RayTaskError

from actors.actor import ActorSpec
from actors.evaluator import merged
from actors.fleet import DEAD, MOST_DEATHS_IN_A_ROW, Fleet, Limits, Poll, answered
from actors.ray_actor import start_actor, start_evaluator
from cluster.balance import Balancer
from cluster.desired import Desired
from cluster.errors import RunFailed
from cluster.learner_group import CALL_TIMEOUT_S, LearnerGroup, LearnerLost
from cluster.learner_plan import learner_spec, ranks
from cluster.origin import find_origin
from cluster.plan import Plan
from cluster.replay_plan import shard_specs
from cluster.run_folder import RunFolder
from cluster.runtime import runtime
from cluster.session import Session, lowest_inserts
from cluster.shards import ShardEvent, ShardGroup
from dashboards import records
from learner.ray_learner import LoopSpec, start_ranks
from replay.placement import on_node
from replay.policy_store import PolicyStore

TICK_S = 0.25
# Evaluations under way when a run is stopped are waited for so long.
EVALUATION_TIMEOUT_S = 60.0
SAVES = 3  # tries of the last checkpoint


@dataclass
class Asked:
    """An evaluation that was asked for and has not been told yet."""

    env_steps: int
    policy: str
    number: int
    answers: list[ray.ObjectRef]  # of all evaluators; none when it was lost and is to be asked for again
    life: int  # of the learner that was asked
    losses: int = 0


def first_incarnation(folder: RunFolder) -> int:
    """Above all that the run has had: shards that outlived it know the pushes of those since the checkpoint too."""
    known = [event["incarnation"] for event in records.read(folder.path / "events.jsonl") if "incarnation" in event]
    return 1 + max([*known, folder.manifest.get("incarnation", -1)]) if folder.manifest else 0


@dataclass(frozen=True)
class Saving:
    """A checkpoint under way."""

    name: str
    snapshot: str
    env_steps: int
    started: float
    learner: ray.ObjectRef
    shards: list[ray.ObjectRef]


class Coordinator:
    """Start with `run`, inside an initialised Ray. `live` is the folder for the shards' files."""

    def __init__(self, plan: Plan, session: Session, live: Path, device: str) -> None:
        self.plan = plan
        self.session = session
        self.device = device
        config = plan.config
        folder = session.folder
        self.checkpoint = folder.checkpoint
        if self.checkpoint:
            session.prune()  # what came after this checkpoint in a future that is not to be
        self.shards = ShardGroup(shard_specs(plan, folder, live), folder.id)
        self.handles = self.shards.handles
        self.store = (
            ray.remote(PolicyStore).options(num_cpus=0, max_concurrency=2, max_restarts=-1, **on_node()).remote(ray.put)
        )
        self.learner = LearnerGroup(self._start_learner, config.learner.deadline)
        self.runtimes = {benchmark: runtime(config.actors, benchmark) for benchmark in plan.benchmarks}
        self.evaluators = self._start_evaluators()
        self.evaluating: list[Asked] = []
        parts = {benchmark: plan.part(benchmark) for benchmark in plan.benchmarks}
        self.fleet = Fleet(
            plan.assignments(plan.counts()),
            first_incarnation(folder),
            plan.actor,
            self._start_actor,
            {benchmark: Limits(part.deadline, part.memory * 1e9) for benchmark, part in parts.items()},
        )
        self.desired = Desired(folder.path, plan.counts())
        self.balancer = Balancer(plan, folder.path)
        self.saving: Saving | None = None
        self.died_saving = False  # a part has, since the newest checkpoint

    def run(self, stop: threading.Event) -> bool:
        """Train to the step budget; False when `stop` was set before. Raises RunFailed when a part fails."""
        self._tell_of_shards(self.shards.fresh())
        self.session.folder.replay_taken()
        for stats in self.shards.stats:
            self.session.replay_began(stats)
        if not self.session.random_is_scored:
            self._evaluate("random", 0)
        try:
            self.session.records.event("learner_ready", **self.learner.train())
        except LearnerLost as error:
            self._replace_learner(str(error))
        self.fleet.collect()
        while True:
            self._train(stop)
            try:
                completed = self._finish()
            except LearnerLost as error:  # what it had not saved is made up for
                self._replace_learner(str(error))
                continue
            if completed or stop.is_set():
                self.shards.close()
                return completed

    def _train(self, stop: threading.Event) -> None:
        """Until the budget is met or `stop` is set."""
        while not stop.is_set():
            env_steps = self._tick()
            if self.session.report_due():
                self._report()
            if self.fleet.finished and self._all_inserted() and self._completed:
                return
            if self.session.evaluation_due(env_steps):
                self._evaluate("deterministic", env_steps)
            if self.saving is None and self.session.checkpoint_due(env_steps):
                self._begin_save(env_steps)
            stop.wait(TICK_S)

    def _all_inserted(self) -> bool:
        """Whether every shard has met its budget. Actors that end before that are begun anew: a shard that was lost
        when it was full has forgotten the newest of what it took."""
        steps = self.plan.config.steps
        if lowest_inserts(self.shards.stats) < steps:
            self._tell_of_shards(self.shards.fresh())
        if lowest_inserts(self.shards.stats) >= steps:
            return True
        self.fleet.renew()
        return False

    @property
    def _completed(self) -> bool:
        """Whether every update of the budget is made."""
        return bool(self.learner.report["updates"] >= self.plan.total_updates)

    def _tick(self) -> int:
        """Hear from every part; returns the environment steps of the slowest task."""
        self._tell_of_shards(self.shards.poll())
        self._hear_learner()
        self._follow_desired()
        news = self._poll_fleet()
        self.session.progress.episodes_ended(news.reports)
        for death in news.deaths:
            self.session.records.event("actor_died", death.cause, actor=death.actor, incarnation=death.incarnation)
            reason = death.cause.strip().splitlines()[-1]
            self.session.console.say(f"actor {death.actor} is being replaced: {reason}")
        for actor, incarnation in news.started:
            self.session.records.event("actor_started", actor=actor, incarnation=incarnation)
        self._collect_evaluations()
        self._commit_save(wait=False)
        return lowest_inserts(self.shards.stats)

    def _tell_of_shards(self, events: list[ShardEvent]) -> None:
        for event in events:
            self.session.shard_event(event.kind, event.reason, event.details)

    def _hear_learner(self) -> None:
        try:
            self.learner.hear()
        except LearnerLost as error:
            self._replace_learner(str(error))

    def _follow_desired(self) -> None:
        """Have as many actors as `brc scale` asks for."""
        counts = self.desired.changed()
        if counts is not None:
            self.fleet.resize(self.plan.assignments(counts))
            self.session.records.event("scaled", actors=counts)
            words = ", ".join(f"{benchmark} {count}" for benchmark, count in counts.items())
            self.session.console.say(f"actors wanted: {words}")

    def _poll_fleet(self) -> Poll:
        try:
            return self.fleet.poll()
        except (RayTaskError, RuntimeError) as error:
            raise RunFailed(f"an actor failed: {error}") from error

    def _start_actor(self, spec: ActorSpec) -> ActorHandle:
        benchmark = spec.tasks[0][1].benchmark
        cpus = self.plan.part(benchmark).cpus
        return start_actor(spec, list(self.handles), self.store, cpus, self.runtimes[benchmark])

    def _start_evaluators(self) -> list[ActorHandle]:
        """One a benchmark: each may have packages of its own, and none waits for the slowest."""
        return [start_evaluator(self.plan.evaluator(name), self.runtimes[name]) for name in self.plan.benchmarks]

    def _start_learner(self, life: int) -> Any:
        config = self.plan.config.learner
        spec = learner_spec(self.plan, self.device)
        loop = LoopSpec(
            self.plan.total_updates,
            config.publish_interval,
            10 * config.batches_per_request,
            config.requests_in_flight,
            ranks(self.plan),
            config.deadline,
            self.session.folder.checkpoints.url(self.checkpoint) if self.checkpoint else "",
            None if self.checkpoint else find_origin(self.plan),
            str(self.session.folder.path.absolute()),
            config.profile if life == 0 else 0,
            life,
            tuple(self.plan.shards[0].storage.probabilities),
        )
        return start_ranks(spec, loop, list(self.handles), self.store, 1.0 if self.device == "cuda" else 0.0)

    def _replace_learner(self, cause: str) -> None:
        """A new learner from the newest checkpoint, or from nothing before the first. Replay and actors go on under
        the limiter meanwhile."""
        saving = self.saving is not None or self.died_saving
        if self.saving is not None:
            if not answered(self.saving.learner):
                self.learner.kill()  # nobody is to wait for what will not be written
            if not self._commit_save(wait=True):
                self.session.checkpoint_soon()
        records = self.session.records
        # One that dies whenever it saves would otherwise make the same updates for ever.
        ready, lost = self.learner.replace(
            saving, lambda cause, updates: records.event("learner_died", cause, updates=updates), cause
        )
        for asked in self.evaluating:
            asked.losses = 0  # those were this learner's
        records.event("learner_restarted", updates=ready["updates"], lost_updates=lost)
        self.session.console.say(
            f"the learner died at {ready['updates'] + lost:,} updates and goes on from {ready['updates']:,}, making up "
            f"for the rest"
        )

    def _report(self) -> None:
        reports, fleet = self.fleet.reports, self.fleet.stats()
        row = self.session.progress.row(reports, fleet, self.learner.report, self.shards.stats)
        self.session.report(row)
        self.balancer.consider(row, self.fleet)

    def _evaluate(self, policy: str, env_steps: int) -> None:
        """Ask for an evaluation of the random policy or the learner's."""
        number = self.session.next_evaluation_number()
        answers = self._ask_evaluators(policy, number)
        self.evaluating.append(Asked(env_steps, policy, number, answers, self.learner.lives))

    def _ask_evaluators(self, policy: str, number: int) -> list[ray.ObjectRef]:
        """The policy passes from the learner to the evaluators directly."""
        message = None if policy == "random" else self.learner.first.policy.remote()
        return [evaluator.evaluate.remote(message, number) for evaluator in self.evaluators]

    def _collect_evaluations(self) -> None:
        """Tell those that are done, in order; ask again for those that died with the evaluator or the learner."""
        while self.evaluating:
            first = self.evaluating[0]
            if not first.answers:
                first.answers, first.life = self._ask_evaluators(first.policy, first.number), self.learner.lives
            if not all(answered(answer) for answer in first.answers):
                return
            try:
                self.session.evaluated(merged(ray.get(first.answers)), first.env_steps)
                self.evaluating.pop(0)
            except DEAD as error:  # before RayTaskError: the death of what a task waits for is both
                self._evaluation_lost(first, str(error))
                return
            except RayError as error:
                if first.life == self.learner.lives and not self._learner_was_lost():
                    raise RunFailed(f"the evaluation at {first.env_steps} steps failed: {error}") from error
                self._evaluation_lost(first, str(error))
                return

    def _learner_was_lost(self) -> bool:
        """Whether it cannot answer, in which case it is replaced now."""
        try:
            self.learner.refresh()
        except LearnerLost as error:
            self._replace_learner(str(error))
            return True
        return False

    def _evaluation_lost(self, first: Asked, cause: str) -> None:
        """Start other evaluators, whichever side died; what was asked of these is asked again at the next tick."""
        self.session.records.event("evaluation_lost", cause, env_steps=first.env_steps)
        first.losses += 1
        if first.losses >= MOST_DEATHS_IN_A_ROW:
            raise RunFailed(f"the evaluation at {first.env_steps} steps was lost {first.losses} times: {cause}")
        for evaluator in self.evaluators:
            ray.kill(evaluator)
        self.evaluators = self._start_evaluators()
        for asked in self.evaluating:
            asked.answers = []

    def _begin_save(self, env_steps: int) -> None:
        try:
            name, snapshot = self.session.begin_checkpoint(env_steps)
        except OSError as error:
            self.session.checkpoint_failed(env_steps, error)
            return
        learner = self.learner.first.save.remote(self.session.folder.checkpoints.url(name))
        self.saving = Saving(name, snapshot, env_steps, time.monotonic(), learner, self.shards.save(snapshot))

    def _commit_save(self, wait: bool) -> bool:
        """Make the checkpoint under way the newest once all of it is written; whether that was done now."""
        if self.saving is None:
            return False
        saving = self.saving
        parts = [saving.learner, *saving.shards]
        if not wait and not all(answered(part) for part in parts):
            return False
        self.saving = None
        # All of them have stopped writing before the checkpoint is committed, or removed.
        ray.wait(parts, num_returns=len(parts), timeout=CALL_TIMEOUT_S)
        try:
            updates = self._get(saving.learner)
            new_bytes = sum(self._get(saving.shards))
            self.session.commit_checkpoint(
                saving.name,
                saving.snapshot,
                saving.env_steps,
                updates,
                self.fleet.incarnation,
                saving.started,
                new_bytes,
            )
        except (RunFailed, RayError, OSError) as error:
            self.session.checkpoint_failed(saving.env_steps, error, saving.name)
            if isinstance(error, DEAD):
                self.died_saving = True
                self.session.checkpoint_soon()
            return False
        self.checkpoint, self.died_saving = saving.name, False
        return True

    def _finish(self) -> bool:
        """Stop the loops, write the last checkpoint, and evaluate the final policy if the budget was met; returns
        whether it was. Raises LearnerLost when the learner died meanwhile."""
        self._commit_save(wait=True)
        self.fleet.stop(timeout=30.0)
        self.learner.ask("stop")
        self.learner.refresh()
        self._tick()
        self._tell_of_shards(self.shards.fresh())
        env_steps = lowest_inserts(self.shards.stats)
        for tries_left in reversed(range(SAVES)):
            self._begin_save(env_steps)
            if self._commit_save(wait=True):
                break
            self.learner.refresh()  # if it was the learner that died, another can write it
            self._tell_of_shards(self.shards.fresh())  # a shard that died comes back
            if not tries_left:
                raise RunFailed("its last checkpoint could not be written; the events file has the reason")
        completed = self._completed and env_steps >= self.plan.config.steps
        if completed:
            self._evaluate("deterministic", env_steps)
        self._wait_for_evaluations(None if completed else EVALUATION_TIMEOUT_S)
        self._report()
        return completed

    def _wait_for_evaluations(self, timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        while self.evaluating and (deadline is None or time.monotonic() < deadline):
            self._hear_learner()
            self._collect_evaluations()
            time.sleep(TICK_S)

    def _get(self, references: Any) -> Any:
        """ray.get that turns a failure inside a part into RunFailed; a dead part stays one of DEAD."""
        try:
            return ray.get(references, timeout=CALL_TIMEOUT_S)
        except DEAD:
            raise
        except RayTaskError as error:
            raise RunFailed(str(error)) from error
        except ray.exceptions.GetTimeoutError as error:
            raise RunFailed(f"a part did not answer within {CALL_TIMEOUT_S:.0f} s") from error
