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

from actors.fleet import DEAD, MOST_DEATHS_IN_A_ROW, Fleet, Poll, answered
from actors.ray_actor import start_actor, start_evaluator
from cluster.errors import RunFailed
from cluster.learner_plan import learner_spec
from cluster.plan import Plan
from cluster.replay_plan import shard_specs
from cluster.session import Session, lowest_inserts
from cluster.shards import ShardEvent, ShardGroup
from learner.ray_learner import LoopSpec, start_learner
from replay.placement import on_node
from replay.policy_store import PolicyStore

TICK_S = 0.25
# What a part may take for an answer: it may be in the midst of writing a large checkpoint, or of a very large update.
CALL_TIMEOUT_S = 600.0
# Evaluations under way when a run is stopped are waited for so long.
EVALUATION_TIMEOUT_S = 60.0
SAVES = 3  # tries of the last checkpoint


@dataclass
class Asked:
    """An evaluation that was asked for and has not been told yet."""

    env_steps: int
    policy: str
    number: int
    answer: ray.ObjectRef | None  # None when it was lost and is to be asked for again
    losses: int = 0


@dataclass(frozen=True)
class Saving:
    """A checkpoint under way."""

    folder: Path
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
        folder, manifest = session.folder, session.folder.manifest
        self.checkpoint: Path | None = folder.checkpoint
        if self.checkpoint is not None:
            session.prune()  # what came after this checkpoint in a future that is not to be
        self.shards = ShardGroup(shard_specs(plan, folder, live), folder.id)
        self.handles = self.shards.handles
        self.store = (
            ray.remote(PolicyStore).options(num_cpus=0, max_concurrency=2, max_restarts=-1, **on_node()).remote(ray.put)
        )
        self.learner_lives = 0
        self.learner = self._start_learner()
        self.learner_report: dict[str, Any] = {}
        self.learner_asked: ray.ObjectRef | None = None
        self.learner_deaths = 0  # in a row, without an update in between
        self.restored_updates = 0
        self.evaluator = start_evaluator(plan.evaluator(), cpus=0)
        self.evaluating: list[Asked] = []
        self.fleet = Fleet(
            plan.actor_count,
            manifest["incarnation"] + 1 if manifest else 0,
            plan.actor,
            lambda spec: start_actor(spec, list(self.handles), self.store, config.actors.cpus),
        )
        self.saving: Saving | None = None

    def run(self, stop: threading.Event) -> bool:
        """Train to the step budget; False when `stop` was set before. Raises RunFailed when a part fails."""
        self._tell_of_shards(self.shards.fresh())
        self.session.folder.replay_taken()
        for stats in self.shards.stats:
            self.session.replay_began(stats)
        if not self.session.random_is_scored:
            self._evaluate("random", 0)
        try:
            self._learner_ready()
        except DEAD as error:
            self._replace_learner(str(error))
        self.fleet.collect()
        while True:
            self._train(stop)
            try:
                completed = self._finish()
            except DEAD as error:  # only the learner's death comes here: what it had not saved is made up for
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
        return bool(self.learner_report["updates"] >= self.plan.total_updates)

    def _tick(self) -> int:
        """Hear from every part; returns the environment steps of the slowest task."""
        self._tell_of_shards(self.shards.poll())
        self._hear_learner()
        news = self._poll_fleet()
        self.session.progress.episodes_ended(news.reports)
        for death in news.deaths:
            self.session.records.event("actor_died", death.cause, actor=death.actor, incarnation=death.incarnation)
            self.session.console.say(f"actor {death.actor} died and is being replaced")
        for actor, incarnation in news.started:
            self.session.records.event("actor_started", actor=actor, incarnation=incarnation)
        self._collect_evaluations()
        self._commit_save(wait=False)
        return lowest_inserts(self.shards.stats)

    def _tell_of_shards(self, events: list[ShardEvent]) -> None:
        for event in events:
            self.session.shard_event(event.kind, event.reason, event.details)

    def _hear_learner(self) -> None:
        """Its newest report, if that has come: an update may take long, and other parts are not to wait for it."""
        if self.learner_asked is None:
            self.learner_asked = self.learner.report.remote()
        elif answered(self.learner_asked):
            asked, self.learner_asked = self.learner_asked, None
            try:
                self.learner_report = self._get(asked)
            except DEAD as error:
                self._replace_learner(str(error))

    def _poll_fleet(self) -> Poll:
        try:
            return self.fleet.poll()
        except (RayTaskError, RuntimeError) as error:
            raise RunFailed(f"an actor failed: {error}") from error

    def _start_learner(self) -> ActorHandle:
        config = self.plan.config.learner
        loop = LoopSpec(
            self.plan.total_updates,
            config.publish_interval,
            diagnostics_interval=10 * config.batches_per_request,
            requests_in_flight=config.requests_in_flight,
            life=self.learner_lives,
            probabilities=tuple(self.plan.shards[0].storage.probabilities),
        )
        checkpoint = None if self.checkpoint is None else str(self.checkpoint)
        spec = learner_spec(self.plan, self.device)
        gpus = 1.0 if self.device == "cuda" else 0.0
        return start_learner(spec, loop, list(self.handles), self.store, checkpoint, gpus)

    def _learner_ready(self) -> None:
        """Wait for the learner, and let it train."""
        ready = self._get(self.learner.ready.remote())
        self.restored_updates = ready["updates"]
        self.learner_asked = None
        self.learner_report = self._get(self.learner.report.remote())
        self._get(self.learner.start.remote())
        self.session.records.event("learner_ready", **ready)

    def _replace_learner(self, cause: str) -> None:
        """A new learner from the newest checkpoint, or from nothing before the first. Replay and actors go on under
        the limiter meanwhile."""
        lost = self.learner_report.get("updates", 0)
        saving = self.saving is not None
        if saving and not self._commit_save(wait=True):
            self.session.checkpoint_soon()
        # One that dies whenever it saves would otherwise make the same updates for ever.
        self.learner_deaths = self.learner_deaths + 1 if saving or lost <= self.restored_updates else 1
        while True:
            if self.learner_deaths >= MOST_DEATHS_IN_A_ROW:
                raise RunFailed(f"the learner died {self.learner_deaths} times without getting on: {cause}")
            self.session.records.event("learner_died", cause, updates=lost)
            ray.kill(self.learner)  # it may only have been out of reach
            self.learner_lives += 1
            self.learner = self._start_learner()
            try:
                self._learner_ready()
                break
            except DEAD as error:
                cause = str(error)
                self.learner_deaths += 1
        for asked in self.evaluating:
            asked.losses = 0  # those were this learner's
        self.session.records.event(
            "learner_restarted", updates=self.restored_updates, lost_updates=max(0, lost - self.restored_updates)
        )
        self.session.console.say(
            f"the learner died at {lost:,} updates and goes on from {self.restored_updates:,}, making up for the rest"
        )

    def _report(self) -> None:
        reports, actors = self.fleet.reports, self.plan.actor_count
        self.session.report(self.session.progress.row(reports, actors, self.learner_report, self.shards.stats))

    def _evaluate(self, policy: str, env_steps: int) -> None:
        """Ask for an evaluation of the random policy or the learner's."""
        number = self.session.next_evaluation_number()
        self.evaluating.append(Asked(env_steps, policy, number, self._ask_evaluator(policy, number)))

    def _ask_evaluator(self, policy: str, number: int) -> ray.ObjectRef:
        """The policy passes from the learner to the evaluator directly."""
        message = None if policy == "random" else self.learner.policy.remote()
        answer: ray.ObjectRef = self.evaluator.evaluate.remote(message, number)
        return answer

    def _collect_evaluations(self) -> None:
        """Tell those that are done, in order; ask again for those that died with the evaluator or the learner."""
        while self.evaluating:
            first = self.evaluating[0]
            if first.answer is None:
                first.answer = self._ask_evaluator(first.policy, first.number)
            if not answered(first.answer):
                return
            try:
                self.session.evaluated(ray.get(first.answer), first.env_steps)
                self.evaluating.pop(0)
            except DEAD as error:  # before RayTaskError: the death of what a task waits for is both
                self._evaluation_lost(first, str(error))
                return
            except RayError as error:
                raise RunFailed(f"the evaluation at {first.env_steps} steps failed: {error}") from error

    def _evaluation_lost(self, first: Asked, cause: str) -> None:
        """Start another evaluator, whichever side died; what was asked of this one is asked again at the next tick."""
        self.session.records.event("evaluation_lost", cause, env_steps=first.env_steps)
        first.losses += 1
        if first.losses >= MOST_DEATHS_IN_A_ROW:
            raise RunFailed(f"the evaluation at {first.env_steps} steps was lost {first.losses} times: {cause}")
        ray.kill(self.evaluator)
        self.evaluator = start_evaluator(self.plan.evaluator(), cpus=0)
        for asked in self.evaluating:
            asked.answer = None

    def _begin_save(self, env_steps: int) -> None:
        try:
            folder, snapshot = self.session.begin_checkpoint(env_steps)
        except OSError as error:
            self.session.checkpoint_failed(env_steps, error)
            return
        learner = self.learner.save.remote(str(folder))
        self.saving = Saving(folder, snapshot, env_steps, time.monotonic(), learner, self.shards.save(snapshot))

    def _commit_save(self, wait: bool) -> bool:
        """Make the checkpoint under way the newest once all of it is written; whether that was done now."""
        if self.saving is None:
            return False
        saving = self.saving
        parts = [saving.learner, *saving.shards]
        if not wait and not all(answered(part) for part in parts):
            return False
        self.saving = None
        # All of them have stopped writing before the folder is committed, or removed.
        ray.wait(parts, num_returns=len(parts), timeout=CALL_TIMEOUT_S)
        try:
            updates = self._get(saving.learner)
            new_bytes = sum(self._get(saving.shards))
            self.checkpoint = self.session.commit_checkpoint(
                saving.folder,
                saving.snapshot,
                saving.env_steps,
                updates,
                self.fleet.incarnation,
                saving.started,
                new_bytes,
            )
        except (RunFailed, RayError, OSError) as error:
            self.session.checkpoint_failed(saving.env_steps, error, saving.folder)
            if isinstance(error, DEAD):
                self.session.checkpoint_soon()
            return False
        return True

    def _finish(self) -> bool:
        """Stop the loops, write the last checkpoint, and evaluate the final policy if the budget was met; returns
        whether it was. Raises one of DEAD when the learner died meanwhile."""
        self._commit_save(wait=True)
        self.fleet.stop(timeout=30.0)
        self._get(self.learner.stop.remote())
        self.learner_asked, self.learner_report = None, self._get(self.learner.report.remote())
        self._tick()
        self._tell_of_shards(self.shards.fresh())
        env_steps = lowest_inserts(self.shards.stats)
        for tries_left in reversed(range(SAVES)):
            self._begin_save(env_steps)
            if self._commit_save(wait=True):
                break
            self._get(self.learner.report.remote())  # if it was the learner that died, another can write it
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
