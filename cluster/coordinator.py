"""The driver of a distributed run: starts the parts in order, keeps them alive, stops them at the budget.

Order: replay shards, policy store, learner, evaluator and actors are created together; actors collect once the learner
is ready. While it runs the coordinator only asks for reports and acts on milestones: no transition, batch or policy
passes through it.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayActorError, RayError, RayTaskError

from actors.fleet import Fleet, Poll, answered
from actors.ray_actor import start_actor, start_evaluator
from cluster.errors import RunFailed
from cluster.learner_plan import learner_spec
from cluster.plan import Plan
from cluster.session import Session, lowest_inserts
from learner.ray_learner import LoopSpec, start_learner
from replay.policy_store import PolicyStore
from replay.ray_shard import RayShard, start_shard

TICK_S = 0.25
CALL_TIMEOUT_S = 120.0
LEARNER_START_TIMEOUT_S = 600.0


class Coordinator:
    """Start with `run`, inside an initialised Ray."""

    def __init__(self, plan: Plan, session: Session, device: str) -> None:
        self.plan = plan
        self.session = session
        self.device = device
        config = plan.config
        folder, manifest = session.folder, session.folder.manifest
        self.checkpoint: Path | None = folder.checkpoint
        self.shards = [start_shard(spec, f"{folder.name}/shard-{spec.index}") for spec in plan.shards]
        self.handles = [RayShard(shard) for shard in self.shards]
        self.store = ray.remote(PolicyStore).options(num_cpus=0, max_concurrency=2).remote(ray.put)
        if self.checkpoint is not None:
            replay = str(self.checkpoint / "replay")
            self._get([shard.restore.remote(replay) for shard in self.shards], LEARNER_START_TIMEOUT_S)
        self.learner = self._start_learner()
        self.learner_report: dict[str, Any] = {}
        self.restored_updates = -1
        self.evaluator = start_evaluator(plan.evaluator(), cpus=0)
        self.evaluating: list[tuple[int, int, str, ray.ObjectRef]] = []
        self.fleet = Fleet(
            plan.actor_count,
            manifest["incarnation"] + 1 if manifest else 0,
            plan.actor,
            lambda spec: start_actor(spec, list(self.handles), self.store, config.actors.cpus),
        )
        self.saving: tuple[Path, int, float, ray.ObjectRef, list[ray.ObjectRef]] | None = None

    def run(self, stop: threading.Event) -> bool:
        """Train to the step budget; False when `stop` was set before. Raises RunFailed when a part fails."""
        if self.session.evaluations == 0:
            self._evaluate("random", 0, 0, None)
        self._learner_ready()
        self.fleet.collect()
        while not stop.is_set():
            shards, env_steps = self._tick()
            if self.session.report_due() and self.learner_report:
                self._report(shards)
            if self.learner_report.get("finished") and self.fleet.finished:
                break
            if self.session.evaluation_due(env_steps):
                self._evaluate("deterministic", env_steps, self.learner_report["updates"], self.learner.policy.remote())
            if self.session.checkpoint_due(env_steps) and self.saving is None:
                self._begin_save(env_steps)
            time.sleep(TICK_S)
        return self._finish(completed=not stop.is_set())

    def _tick(self) -> tuple[list[dict[str, Any]], int]:
        """Hear from every part; returns the shards' stats and the environment steps of the slowest task."""
        try:
            shards = self._get([shard.stats.remote() for shard in self.shards], CALL_TIMEOUT_S)
        except RayActorError as error:
            raise RunFailed(
                f"a replay shard died, and with it the transitions since the last checkpoint: {error}"
            ) from error
        try:
            self.learner_report = self._get(self.learner.report.remote(), CALL_TIMEOUT_S)
        except RayActorError as error:
            self._replace_learner(str(error))
        news = self._poll_fleet()
        self.session.progress.episodes_ended(news.reports)
        for death in news.deaths:
            self.session.records.event("actor_died", death.cause, actor=death.actor, incarnation=death.incarnation)
            self.session.console.say(f"actor {death.actor} died and is being replaced")
        for actor, incarnation in news.started:
            self.session.records.event("actor_started", actor=actor, incarnation=incarnation)
        self._collect_evaluations(wait=False)
        self._commit_save(wait=False)
        return shards, lowest_inserts(shards)

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
        )
        checkpoint = None if self.checkpoint is None else str(self.checkpoint)
        spec = learner_spec(self.plan, self.device)
        gpus = 1.0 if self.device == "cuda" else 0.0
        return start_learner(spec, loop, list(self.handles), self.store, checkpoint, gpus)

    def _learner_ready(self) -> None:
        """Wait for the learner, give the limiters its count of used samples, and let it train."""
        try:
            ready = self._get(self.learner.ready.remote(), LEARNER_START_TIMEOUT_S)
        except RayActorError as error:
            raise RunFailed(f"the learner died while it started: {error}") from error
        self.restored_updates = ready["updates"]
        batch_size = self.plan.config.learner.batch_size
        if self.restored_updates or self.learner_report:
            counts = zip(self.shards, ready["consumed"], strict=True)
            self._get([shard.rewind.remote(used * batch_size) for shard, used in counts], CALL_TIMEOUT_S)
        self._get(self.learner.start.remote(), CALL_TIMEOUT_S)
        self.session.records.event("learner_ready", **ready)

    def _replace_learner(self, cause: str) -> None:
        """A new learner from the newest checkpoint. Replay and actors go on under the limiter meanwhile."""
        lost = self.learner_report.get("updates", 0)
        if lost <= self.restored_updates:
            raise RunFailed(f"the learner died again before it made an update: {cause}")
        self.saving = None  # it cannot be completed any more
        self.session.records.event("learner_died", cause, updates=lost)
        self.learner = self._start_learner()
        self._learner_ready()
        self.session.records.event(
            "learner_restarted", updates=self.restored_updates, lost_updates=lost - self.restored_updates
        )
        self.session.console.say(
            f"the learner died at {lost:,} updates and goes on from {self.restored_updates:,}, making up for the rest"
        )

    def _report(self, shards: list[dict[str, Any]]) -> None:
        row = self.session.progress.row(self.fleet.reports, self.plan.actor_count, self.learner_report, shards)
        self.session.report(row)

    def _evaluate(self, policy: str, env_steps: int, updates: int, message: Any) -> None:
        """Ask for an evaluation; policies pass from the learner to the evaluator directly."""
        number = self.session.next_evaluation_number()
        self.evaluating.append((env_steps, updates, policy, self.evaluator.evaluate.remote(message, number)))

    def _collect_evaluations(self, wait: bool) -> None:
        while self.evaluating and (wait or answered(self.evaluating[0][3])):
            env_steps, updates, policy, reference = self.evaluating.pop(0)
            try:
                self.session.evaluated(ray.get(reference), env_steps, updates, policy)
            except RayTaskError as error:
                raise RunFailed(f"the evaluation at {env_steps} steps failed: {error}") from error
            except RayActorError as error:
                self.session.records.event("evaluation_lost", str(error), env_steps=env_steps)
                self.evaluator = start_evaluator(self.plan.evaluator(), cpus=0)
                # What else was asked of the dead evaluator is lost with it.
                self.evaluating = []
            except RayError as error:
                self.session.records.event("evaluation_lost", str(error), env_steps=env_steps)

    def _begin_save(self, env_steps: int) -> None:
        try:
            folder = self.session.begin_checkpoint(env_steps)
        except OSError as error:
            self.session.checkpoint_failed(env_steps, error)
            return
        learner = self.learner.save.remote(str(folder))
        shards = [shard.save.remote(str(folder / "replay")) for shard in self.shards]
        self.saving = (folder, env_steps, time.monotonic(), learner, shards)

    def _commit_save(self, wait: bool) -> bool:
        """Make the checkpoint under way the newest once all of it is written; whether that was done now."""
        if self.saving is None:
            return False
        folder, env_steps, started, learner, shards = self.saving
        if not wait and not all(answered(reference) for reference in (learner, *shards)):
            return False
        self.saving = None
        try:
            updates = ray.get(learner)
            ray.get(shards)
            self.checkpoint = self.session.commit_checkpoint(
                folder, env_steps, updates, self.fleet.incarnation, started
            )
        except (RayError, OSError) as error:
            self.session.checkpoint_failed(env_steps, error)
            return False
        return True

    def _finish(self, completed: bool) -> bool:
        """Stop the loops, write the last checkpoint, and evaluate the final policy if the budget was reached."""
        self._commit_save(wait=True)
        self.fleet.stop(timeout=30.0)
        self._get(self.learner.stop.remote(), CALL_TIMEOUT_S)
        shards, env_steps = self._tick()
        self._begin_save(env_steps)
        if not self._commit_save(wait=True):
            raise RunFailed("its last checkpoint could not be written; the events file has the reason")
        if completed:
            self._evaluate("deterministic", env_steps, self.learner_report["updates"], self.learner.policy.remote())
            self._collect_evaluations(wait=True)
        self._report(shards)
        return completed

    def _get(self, references: Any, timeout: float) -> Any:
        """ray.get that turns a failure inside a part into RunFailed; a dead part stays a RayActorError."""
        try:
            return ray.get(references, timeout=timeout)
        except RayTaskError as error:
            raise RunFailed(str(error)) from error
        except ray.exceptions.GetTimeoutError as error:
            raise RunFailed(f"a part did not answer within {timeout:.0f} s") from error
