"""Driver of a distributed run: start the parts in order, keep them alive, stop them at the budget.

All parts are made together (cluster/plan/topology.py), and actors collect once the learner is ready. During the run the
coordinator asks for reports and acts on milestones. No transition, batch or policy passes through it.
"""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

from ray.exceptions import RayTaskError

from actors.backends.returned import BadEnvironment
from actors.causes import Cause
from actors.deaths import answered, cause_of
from actors.fleet import FleetFailed, Poll
from cluster.backend.parts import Parts
from cluster.errors import RunFailed
from cluster.plan.plan import Plan
from cluster.plan.topology import build
from cluster.run.kept import Kept
from cluster.run.registry import LeaseLost
from cluster.run.session import Session
from cluster.run.stop import CHECKPOINT_S, EVALUATION_S, PARTS_S, Stop, Stopped
from cluster.supervise.balance import Balancer
from cluster.supervise.learner_group import LearnerLost
from cluster.supervise.on_ray import OnRay
from cluster.supervise.recovery import find_survivors
from cluster.supervise.saver import Saver
from cluster.supervise.shards import ShardEvent
from cluster.supervise.waiting import all_answer
from dashboards.events import ActorDied, ActorStarted, LearnerDied, LearnerRestarted, Scaled
from dashboards.progress import lowest_inserts
from dashboards.rows import Row
from learner.config import Device

TICK_S = 0.25
SAVES = 3  # tries of the last checkpoint
FLEET_S = 30.0  # time for actors to end their loops


class Coordinator:
    """Conduct a run on Ray, which must be initialised; begin with `run`. `live` is the folder for the shards' files."""

    def __init__(self, plan: Plan, session: Session, live: Path, device: Device, parts: Parts) -> None:
        self.plan = plan
        self.session = session
        self.saver = Saver(session)
        self.presence = session.folder.presence
        self.stop = self.presence.stop
        self.found = found = find_survivors(plan, session, parts)
        self.trains = found.trains  # whether the learner has begun: a checkpoint would hold something
        self.counts = plan.counts() | ((found.kept.counts if found.kept else {}) or self.presence.desired)
        self.presence.begin(self.counts, {name: plan.most_actors(name) for name in plan.benchmarks})
        made = build(OnRay(plan, session, live, device, parts, found, lambda: self.saver.newest, self.counts))
        self.shards, self.learner, self.evaluators, self.fleet = made.shards, made.learner, made.evaluators, made.actors
        self.balancer = Balancer(plan, self.presence)

    def run(self) -> bool:
        """Train to the step budget. Return False if a stop came before. Raises RunFailed when a part fails.

        In every case, the last state is saved in a checkpoint if the parts can still write it.
        """
        try:
            self._begin()
            return self._conduct()
        except LeaseLost:
            raise
        except Stopped as late:
            if self.trains:
                raise RunFailed(f"it was stopped, and its last checkpoint could not be written: {late}") from late
            if not self.saver.newest:  # without a checkpoint, no resume can use the shards' files
                self.shards.close(self.stop)
            return False
        except BaseException:
            if self.trains:
                self._save_at_last()
            raise

    def _begin(self) -> None:
        """Wait for all parts and let the learner train. Raises Stopped after a stop: at once for a new learner, after
        PARTS_S for a learner that already lives, since its updates are not saved yet."""
        patience_s = PARTS_S if self.trains else 0.0
        self._tell_of_shards(self.shards.fresh(self.stop, patience_s))
        self.session.folder.replay_taken(self.found.take)
        for stats in self.shards.stats if not self.found.attached else []:
            self.session.replay_began(stats)
        if not self.session.random_is_scored and not any(kind == "random" for _, kind, _ in self.evaluators.pending):
            self._evaluate("random", 0)
        try:
            self.session.learner_ready(self.learner.train(patience_s))
        except LearnerLost as error:
            self._replace_learner(error)
        self.trains = True
        self._keep()
        self.fleet.collect()

    def _conduct(self) -> bool:
        while True:
            self._train()
            try:
                completed = self._finish()
            except LearnerLost as error:  # a new learner repeats the updates that were not saved
                self._replace_learner(error)
                continue
            if completed or self.stop.is_set():
                self.shards.close(self.stop)
                return completed

    def _train(self) -> None:
        """Train until the budget is met or a stop is asked for."""
        while not self.stop.is_set():
            self._wait_to_act()
            env_steps = self._tick()
            if self.session.report_due():
                self.balancer.consider(self._report(), self.fleet)
            if self._all_inserted() and self._completed:
                return
            if self.session.milestones.evaluation_due(env_steps):
                self._evaluate("deterministic", env_steps)
            if (
                self.saver.saving is None
                and not self.shards.away
                and self.session.milestones.checkpoint_due(env_steps, self.learner.updates)
            ):
                self.saver.begin(env_steps, self.learner, self.shards)
            self.stop.wait(TICK_S)

    def _wait_to_act(self) -> None:
        """Wait until this process surely has the lease; all parts go on meanwhile. Raises LeaseLost."""
        while not self.presence.may_act():
            time.sleep(TICK_S)

    def _all_inserted(self) -> bool:
        """Whether the step budget is met. Restart actors that ended before that: a full shard that died has lost the
        newest of its transitions."""
        steps = self.plan.config.steps
        if lowest_inserts(self.shards.stats) < steps and self.fleet.finished:
            self._tell_of_shards(self.shards.fresh(self.stop))
            if lowest_inserts(self.shards.stats) < steps:
                self.fleet.renew()
        return lowest_inserts(self.shards.stats) >= steps

    @property
    def _completed(self) -> bool:
        """Whether every update of the budget is made."""
        return self.learner.updates >= self.plan.total_updates

    def _tick(self) -> int:
        """Take in news from every part. Return the environment steps of the slowest task."""
        self._tell_of_shards(self.shards.poll())
        self._hear_learner()
        self._follow_desired()
        news = self._poll_fleet()
        self.session.heard(news.reports)
        for death in news.deaths:
            self.session.records.event(
                ActorDied(reason=death.reason, cause=death.cause, actor=death.actor, incarnation=death.incarnation)
            )
            reason = death.reason.strip().splitlines()[-1]
            self.session.console.say(f"actor {death.actor} is being replaced: {reason}")
        for actor, incarnation in news.started:
            self.session.records.event(ActorStarted(actor=actor, incarnation=incarnation))
        self._collect_evaluations()
        self.saver.commit(self.fleet.incarnation)
        return lowest_inserts(self.shards.stats)

    def _tell_of_shards(self, events: list[ShardEvent]) -> None:
        for event in events:
            self.session.shard_event(event)

    def _hear_learner(self) -> None:
        try:
            self.learner.hear()
        except LearnerLost as error:
            self._replace_learner(error)

    def _follow_desired(self) -> None:
        """Resize the fleet to the actor counts that `brc scale` asked for."""
        counts = self.presence.desired
        if counts and counts != self.counts:
            self.counts = counts
            self.fleet.resize(self.plan.assignments(counts))
            self.session.records.event(Scaled(actors=counts))
            words = ", ".join(f"{benchmark} {count}" for benchmark, count in counts.items())
            self.session.console.say(f"actors wanted: {words}")
            self._keep()

    def _poll_fleet(self) -> Poll:
        try:
            return self.fleet.poll()
        except FleetFailed as error:
            raise RunFailed(f"an actor failed: {error}", error.cause) from error
        except BadEnvironment as error:
            raise RunFailed(f"an actor failed: {error}", Cause.RAISED) from error
        except RayTaskError as error:
            raise RunFailed(f"an actor failed: {error}", cause_of(error)) from error

    def _replace_learner(self, error: LearnerLost) -> None:
        """Start a new learner from the newest checkpoint, or from scratch if there is none. Replay and actors go on
        meanwhile, within the limiter's bounds."""
        saver = self.saver
        saving = saver.saving is not None or saver.died_saving
        if saver.saving is not None:
            if not answered(saver.saving.learner):
                self.learner.kill()  # so that the commit does not wait for its share
            if not saver.commit(self.fleet.incarnation, self.stop):
                self.session.milestones.checkpoint_soon()
        records = self.session.records
        # Without `saving`, a learner that dies at every save would repeat the same updates for ever.
        ready, lost = self.learner.replace(
            saving,
            lambda lost, updates: records.event(LearnerDied(reason=str(lost), cause=lost.cause, updates=updates)),
            error,
        )
        self._keep()
        records.event(LearnerRestarted(learner=ready, lost_updates=lost))
        self.session.console.say(
            f"the learner died at {ready.updates + lost:,} updates and goes on from {ready.updates:,}, making up "
            f"for the rest"
        )

    def _report(self) -> Row:
        fleet, learner = self.fleet, self.learner.report
        assert learner is not None  # the learner is ready
        row = self.session.progress.row(fleet.reports, fleet.stats(), learner, self.shards.stats)
        self.session.report(row)
        self._keep()
        return row

    def _keep(self) -> None:
        """Write down the state that a coordinator needs to take over the run."""
        session, row = self.session, self.session.row
        session.folder.keep(
            Kept(
                env_steps=row.env_steps if row else 0,
                updates=row.updates if row else 0,
                evaluations_begun=session.evaluations_begun,
                progress=session.progress.state(),
                shards=self.shards.stats,
                life=self.learner.lives,
                incarnation=self.fleet.incarnation,
                counts=self.counts,
                evaluating=self.evaluators.pending,
            )
        )

    def _evaluate(self, policy: str, env_steps: int, last: bool = False) -> None:
        self.evaluators.ask(env_steps, policy, self.session.next_evaluation_number(), last)

    def _collect_evaluations(self) -> None:
        for evaluation, env_steps in self.evaluators.collect(self._learner_was_lost):
            self.session.evaluated(evaluation, env_steps)

    def _learner_was_lost(self) -> bool:
        """Whether the learner cannot answer. If so, replace it now."""
        try:
            self.learner.refresh()
        except LearnerLost as error:
            self._replace_learner(error)
            return True
        return False

    def _finish(self) -> bool:
        """Stop the loops, write the last checkpoint, and evaluate the final policy if the budget was met. Return
        whether all of this was done. Raises LearnerLost when the learner died meanwhile."""
        self._wait_to_act()
        self.saver.commit(self.fleet.incarnation, self.stop)
        all_answer(self.fleet.stop(), FLEET_S, self.stop, PARTS_S / 2)
        self.learner.ask("stop")
        self.learner.refresh()
        self._tick()
        self._tell_of_shards(self.shards.fresh(self.stop))
        self._report()  # shows the full budget now: the rest may take long
        env_steps = lowest_inserts(self.shards.stats)
        for tries_left in reversed(range(SAVES)):
            self.saver.begin(env_steps, self.learner, self.shards)
            if self.saver.commit(self.fleet.incarnation, self.stop):
                break
            self.learner.refresh()  # if the learner died, raises LearnerLost: a new learner can write it
            self._tell_of_shards(self.shards.fresh(self.stop))  # a shard that died comes back
            if not tries_left or self.stop.left(CHECKPOINT_S) <= 0.0:
                self.trains = False
                raise RunFailed("its last checkpoint could not be written; the events file has the reason")
        self.trains = False  # all is saved
        completed = self._completed and env_steps >= self.plan.config.steps
        if completed:
            self._evaluate("deterministic", env_steps, last=True)
        are_made = self._wait_for_evaluations() if completed or self.stop.is_set() else False
        self._report()
        return completed and are_made

    def _wait_for_evaluations(self) -> bool:
        """Wait for evaluations, at most EVALUATION_S after a stop. Give up the rest. Return whether all were made."""
        while self.evaluators.asked and self.stop.left(EVALUATION_S) > 0.0:
            self._wait_to_act()
            self._hear_learner()
            self._collect_evaluations()
            if self.session.report_due():
                self._report()
            time.sleep(TICK_S)
        are_made = not self.evaluators.asked
        self.evaluators.give_up("the run was stopped")
        return are_made

    def _save_at_last(self) -> None:
        """Try to write a last checkpoint before the run ends by a fault, if learner and shards can. Only the fault
        itself is raised."""
        limit = self.stop if self.stop.is_set() else Stop()
        limit.set()
        with suppress(Exception):
            try:
                self.saver.commit(self.fleet.incarnation, limit)
                self._tell_of_shards(self.shards.fresh(limit))
                if not (self.saver.newest or self.learner.updates):
                    return  # nothing was learned: the run's name stays free
                env_steps = lowest_inserts(self.shards.stats)
                self.saver.begin(env_steps, self.learner, self.shards)
                if self.saver.commit(self.fleet.incarnation, limit):
                    self.session.console.say(f"a last checkpoint was written at {env_steps:,} steps")
            except Exception as error:
                self.session.console.say(f"no last checkpoint could be written: {error}")
