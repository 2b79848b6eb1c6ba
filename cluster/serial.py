"""A run in one process, in lock step. It uses the same actor, shards, learner and evaluator as on Ray, in turn.

Every iteration steps the actor once and then makes every update that has become due. Nothing depends on time, so equal
configurations give equal parameters bit for bit, also across a stop and a resume. Serial execution is the reference for
distributed execution and the place to debug.
"""

from __future__ import annotations

import math
import threading
import time
import traceback
from contextlib import suppress
from typing import Any

import numpy as np
import torch

from actors.actor import make_environments
from actors.backends.generators import Generators
from actors.backends.recorded import Mark, RecordedEnvironment
from actors.backends.returned import BadEnvironment, Exited
from actors.causes import Cause
from actors.closing import close_in_time
from actors.door import OnlyBadNumbers
from actors.environments import COPY_INDICES, Environment, copy_seed
from actors.evaluator import EVALUATION_STREAM, Abandoned, Evaluator
from actors.reports import FleetCounts
from cluster.backend.in_process import InProcess
from cluster.errors import RunFailed
from cluster.plan.plan import Plan
from cluster.plan.topology import build
from cluster.preflight.origin import find_origin
from cluster.run.session import Session
from dashboards.progress import lowest_inserts
from dashboards.rows import Row
from learner.config import Device
from learner.nonfinite import NonFinite
from learner.reports import LearnerReport, Seconds
from learner.scale.crew import Crew
from learner.scale.trace import Trace
from learner.state.transfer import begin_from
from learner.trained import finish
from replay.policy_store import PolicyMessage
from replay.stats import ShardStats

EVALUATIONS = 3  # tries of an evaluation
OFFLINE_AT_ONCE = 8  # requests of updates before the first step, between two looks at what else there is to do


class SerialRun:
    """All parts of a serial run, restored from the session's checkpoint if it has one."""

    def __init__(self, plan: Plan, session: Session, device: Device) -> None:
        self.plan = plan
        self.session = session
        folder = session.folder
        self.checkpoints = folder.checkpoints
        saved, self.incarnation = self._saved()
        states = [None] * len(plan.tasks) if saved is None else saved["environments"]
        made = build(InProcess(plan, folder, device, self.incarnation, states))
        self.shards, self.store, self.evaluator = made.shards, made.store, made.evaluators
        self.learner, self.sampler = made.learner.learner, made.learner.sampler
        self.actor, self.environments = made.actors.actor, made.actors.environments
        self.seconds = {"data_wait": 0.0, "update": 0.0, "publish": 0.0}
        self.trace = Trace(folder.path, plan.config.learner.profile, plan.config.learner.batches_per_request)
        self.metrics: dict[str, float] = {}
        self.reward_scale = [math.inf] * len(plan.tasks)
        self.policies = 0
        self.published = -1
        self.savable = False  # whether the state is consistent and not saved yet
        try:
            self._go_on(saved)
        except BaseException:
            close_in_time(self.environments)
            raise

    def _saved(self) -> tuple[dict[str, Any] | None, int]:
        """Return two values: the state of actor, environments and sampler in the checkpoint that the run resumes from,
        or None if it holds none; and the incarnation of the actor."""
        folder = self.session.folder
        if folder.manifest is None:
            return None, 0
        if folder.manifest.execution != "serial":  # the run was distributed: new episodes, new random streams
            return None, folder.manifest.incarnation + 1
        with self.checkpoints.open(folder.checkpoint, "serial.pt", "rb") as file:
            return to_numpy(torch.load(file, weights_only=True)), folder.manifest.incarnation

    def _go_on(self, saved: dict[str, Any] | None) -> None:
        """Restore actor, sampler and policy as saved, or begin with the learner's policy if the learner has trained."""
        manifest = self.session.folder.manifest
        origin = None if manifest else find_origin(self.plan)
        if origin is not None:
            begin_from(self.learner, origin)
        if saved is not None:
            if manifest is not None and manifest.steps != self.plan.config.steps:
                saved["actor"]["writer"]["full"] = {}  # a new step budget: full shards have room again
            self.actor.load_state(saved["actor"])
            self.sampler.load_state(saved["sampler"])
            self._restore_policy(saved)
        elif self.learner.updates > 0 or origin is not None:  # a trained policy replaces the random warm-up
            self._publish()
            self.actor.pull()

    def run(self, stop: threading.Event) -> bool:
        """Train to the step budget. Return False if `stop` was set before that. After a failure, save the state after
        the last whole step in a checkpoint, if the environments can be led back to it. Close the environments."""
        try:
            return self._conduct(stop)
        except Exception:
            self._save_at_last()
            raise
        finally:
            close_in_time((self.actor, self.evaluator.copies))

    def _conduct(self, stop: threading.Event) -> bool:
        session, spec = self.session, self.learner.spec
        session.learner_ready(self.learner.ready(spec.config.threads))
        if not session.random_is_scored:
            self._evaluate("random", stop)
        while not stop.is_set():
            finished = self.actor.writer.finished
            self.savable = False
            if self.learner.updates < spec.config.offline_updates:
                self._learn(OFFLINE_AT_ONCE)
            else:
                if not finished:
                    self._step()
                self._learn()
            self.savable = True
            env_steps = lowest_inserts(self._shard_stats())
            if session.report_due():
                session.report(self._row())
            if finished:
                self._finish()
                return self._evaluate("deterministic", stop)
            if session.milestones.evaluation_due(env_steps):
                self._evaluate("deterministic", stop)
            if session.milestones.checkpoint_due(env_steps, self.learner.updates):
                with suppress(Exception):  # the failure is already recorded; the run goes on
                    self._save()
        self._finish()
        return False

    def _finish(self) -> None:
        self.session.report(self._row())
        self.savable = False
        try:
            self._save()
        except Exception as error:
            raise RunFailed(f"its last checkpoint could not be written: {error}") from error

    def _step(self) -> None:
        """Step the actor once. Raises RunFailed when an environment fails."""
        actor, rng = self.actor, self.actor.rng.bit_generator.state
        marks = [environment.mark() for environment in self.environments]
        iterations, steps = actor.iterations, [pool.segments.steps for pool in actor.pools]
        try:
            actor.step()
        except Exception as error:
            cause = Cause.RAISED
            if isinstance(error, OnlyBadNumbers):
                self._row()  # records the first bad numbers
                cause = Cause.BAD_NUMBERS
                reason = f"{error}; mend the environment, or leave it out of --tasks"
            elif isinstance(error, BadEnvironment):
                reason = str(error)
            elif isinstance(error, Exited):
                reason = f"an environment failed: {error}"
            else:
                reason = f"an environment failed:\n{traceback.format_exc()}"
            if iterations == actor.iterations and steps == [pool.segments.steps for pool in actor.pools]:
                actor.rng.bit_generator.state = rng
                self.savable = self._led_back(marks)
            elif not isinstance(error, (OnlyBadNumbers, BadEnvironment, Exited)):
                raise  # the fault is not in the environments, or the step is partly recorded
            raise RunFailed(reason, cause) from error

    def _led_back(self, marks: list[Mark]) -> bool:
        """Undo the failed step. Return whether new environments, led to the marks, give the same observations."""
        others: list[Environment] = []
        try:
            others = make_environments(self.actor.spec, exact=True)
            for environment, mark, made, pool in zip(self.environments, marks, others, self.actor.pools, strict=True):
                environment.back_to(mark)
                other = RecordedEnvironment(made, to_numpy(to_torch(environment.state())))
                if not np.array_equal(other.reset(), pool.inputs):
                    return False
        except Exception:  # a broken environment may raise anything
            return False
        finally:
            close_in_time(others)
        return True

    def _save_at_last(self) -> None:
        """Try to write a last checkpoint before the run ends by a fault. Only the fault itself is raised."""
        newest = self.checkpoints.names()
        with suppress(Exception):
            if self.savable and (newest or self.learner.updates):  # else the name stays free for a new run
                self._save()
                self.session.console.say("a last checkpoint was written, of the state before the fault")
            elif newest:
                self.session.console.say(f"what came after checkpoint {newest[-1]} is to be made again")

    def _learn(self, most: int = 1 << 60) -> None:
        """Make every update that is due, those of about `most` requests, and publish policies between updates. Policies
        of updates before the first step are not published: the actor waits for the last."""
        offline = self.learner.spec.config.offline_updates
        for _ in range(most):
            reply = self.sampler.take_due()
            if reply is None or reply.batches is None:
                break
            started = time.perf_counter()
            trained = self.learner.train(reply.batches, reply.shard, diagnostics=self.session.report_due())
            try:
                self.metrics |= finish(trained, reply.batches, self.session.folder.path)
            except NonFinite as error:
                raise RunFailed(str(error), Cause.LOSS_NOT_FINITE) from error
            self.reward_scale = trained.reward_scale
            self.trace.step()
            self.seconds["update"] += time.perf_counter() - started
            due = (
                self.published < 0 or self.learner.updates - self.published >= self.plan.config.learner.publish_interval
            )
            if due and self.learner.updates >= offline:
                self._publish()

    def _publish(self) -> None:
        self.store.put(self.learner.policy())
        self.published = self.learner.updates
        self.policies += 1

    def _evaluate(self, policy: str, stop: threading.Event) -> bool:
        """Evaluate, with up to three tries. Return False only if `stop` was set before the evaluation ended."""
        session = self.session
        message = None if policy == "random" else self.learner.policy()
        number, env_steps = session.next_evaluation_number(), lowest_inserts(self._shard_stats())
        # An evaluation does not depend on earlier draws from Python's generator.
        drawing = copy_seed(self.plan.config.seed, EVALUATION_STREAM, number % COPY_INDICES)
        for tries_left in reversed(range(EVALUATIONS)):
            try:
                with Generators(drawing, exact=True):
                    result = self.evaluator.evaluate(message, number, stop.is_set)
            except Abandoned:
                if policy == "random":  # a resumed run makes it again, with the same seeds
                    session.evaluations_begun = number
                session.evaluation_lost("the run was stopped", env_steps)
                return False
            except Exception as error:  # environments may raise anything
                session.evaluator_died("all", Cause.RAISED, traceback.format_exc(), env_steps)
                self.evaluator = Evaluator(self.plan.evaluator())
                if not tries_left:
                    reason = f"it was lost {EVALUATIONS} times, at last: {type(error).__name__}: {error}"
                    session.evaluation_lost(reason, env_steps)
            else:
                session.evaluated(result, env_steps)
                break
        return True

    def _shard_stats(self) -> list[ShardStats]:
        return [shard.stats() for shard in self.shards]

    def _row(self) -> Row:
        report = self.actor.report()
        self.session.heard([report])
        learner = LearnerReport(
            updates=self.learner.updates,
            metrics=self.metrics,
            reward_scale=self.reward_scale,
            seconds=Seconds(**self.seconds),
            threads=self.learner.spec.config.threads,
            policies=self.policies,
            sampler=self.sampler.stats(),
        )
        fleet = {"all": FleetCounts(desired=1, alive=1, pending=0, restarts=0)}
        return self.session.progress.row([report], fleet, learner, self._shard_stats())

    def _save(self) -> None:
        """Write a checkpoint. On a failure, remove the checkpoint, record the failure and raise it."""
        started = time.monotonic()
        env_steps = lowest_inserts(self._shard_stats())
        name = ""
        try:
            name, snapshot = self.session.begin_checkpoint(env_steps)
            self._write(name)
            written = time.monotonic()
            new_bytes = sum(shard.save(snapshot) for shard in self.shards)
            seconds = {"learner": written - started, "replay": time.monotonic() - written}
            self.session.commit_checkpoint(
                name, snapshot, env_steps, self.learner.updates, self.incarnation, new_bytes, started, seconds
            )
        except Exception as error:  # any error of a full disk or a remote file system
            self.session.checkpoint_failed(env_steps, error, name)
            raise

    def _write(self, name: str) -> None:
        Crew(self.learner).save(self.checkpoints.url(name)).result()
        state = {
            "actor": self.actor.state(),
            "environments": [environment.state() for environment in self.environments],
            "sampler": self.sampler.state(),
            "published": self.published,
            "policies": {
                name: None if message is None else message._asdict()
                for name, message in (("acting", self.actor.message), ("stored", self.store.boxed))
            },
        }
        with self.checkpoints.open(name, "serial.pt", "wb") as file:
            torch.save(to_torch(state), file)

    def _restore_policy(self, saved: dict[str, Any]) -> None:
        self.published = saved["published"]
        if saved["policies"]["stored"] is not None:
            self.store.put(taken_over(saved["policies"]["stored"]))
        if saved["policies"]["acting"] is not None:
            self.actor.use(taken_over(saved["policies"]["acting"]))


def taken_over(saved: dict[str, Any]) -> PolicyMessage:
    """Return a saved policy. Its age counts from now: the monotonic clock does not span processes."""
    return PolicyMessage(**saved)._replace(published_at=time.monotonic())


def to_torch(value: Any) -> Any:
    """Convert arrays to tensors in nested containers. torch.load reads the result back without running code."""
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value.copy())
    if isinstance(value, dict):
        return {key: to_torch(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [to_torch(item) for item in value]
    return value


def to_numpy(value: Any) -> Any:
    """Invert `to_torch`; tuples come back as lists."""
    if isinstance(value, torch.Tensor):
        return value.numpy()
    if isinstance(value, dict):
        return {key: to_numpy(item) for key, item in value.items()}
    if isinstance(value, list):
        return [to_numpy(item) for item in value]
    return value
