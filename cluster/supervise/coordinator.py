"""The driver of a distributed run: starts the parts in order, keeps them alive, stops them at the budget.

Order: replay shards, policy store, learner, evaluator and actors are created together; actors collect once the learner
is ready. While it runs the coordinator only asks for reports and acts on milestones: no transition, batch or policy
passes through it.
"""

from __future__ import annotations

import time
import uuid
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayTaskError

from actors.actor import ActorSpec
from actors.fleet import Fleet, Limits, Poll, answered
from actors.process import start_actor, start_evaluator
from cluster.backend.nodes import learner_cores
from cluster.backend.parts import Parts
from cluster.errors import RunFailed
from cluster.plan.learner_plan import learner_spec, ranks
from cluster.plan.plan import Plan
from cluster.plan.runtime import runtime
from cluster.preflight.origin import find_origin
from cluster.run.registry import LeaseLost
from cluster.run.replay_plan import shard_specs
from cluster.run.session import Session
from cluster.run.stop import CHECKPOINT_S, EVALUATION_S, PARTS_S, Stop, Stopped
from cluster.supervise.balance import Balancer
from cluster.supervise.evaluators import EvaluatorGroup, Patience
from cluster.supervise.learner_group import LearnerGroup, LearnerLost
from cluster.supervise.recovery import actor_name, first_incarnation, living_actors, living_learner, rank_name
from cluster.supervise.saver import Saver
from cluster.supervise.shards import ShardEvent, ShardGroup
from cluster.supervise.waiting import all_answer
from dashboards.progress import lowest_inserts
from learner.process import LoopSpec, start_ranks
from replay.policy_store import PolicyStore

TICK_S = 0.25
SAVES = 3  # tries of the last checkpoint
FLEET_S = 30.0  # for actors to end their loops


class Coordinator:
    """Start with `run`, inside an initialised Ray. `live` is the folder for the shards' files."""

    def __init__(self, plan: Plan, session: Session, live: Path, device: str, parts: Parts) -> None:
        self.plan = plan
        self.session = session
        self.saver = Saver(session)
        self.device = device
        self.parts = parts
        config, folder, self.presence = plan.config, session.folder, session.folder.presence
        self.stop = self.presence.stop
        self.trains = False  # whether there is anything that a checkpoint would hold
        alive = parts.alive()
        self.attached = any(name.startswith("shard-") for name in alive)
        kept = folder.kept if self.attached else {}
        if kept:
            session.load_state(kept)
        if not self.attached:  # what lives without replay is ahead of the checkpoint, or of another time
            parts.end()
            alive = []
            session.goes_back()
        self.take = max(1, folder.takes if self.attached else folder.takes + 1)
        self.shards = ShardGroup(shard_specs(plan, folder, live, self.take), parts, kept.get("shards", ()))
        self.handles = self.shards.handles
        options = parts.place("learner") | parts.named("policies") | {"get_if_exists": True, "max_restarts": -1}
        self.store = ray.remote(PolicyStore).options(**({"num_cpus": 0} | options), max_concurrency=2).remote(ray.put)
        life = living_learner(parts, alive, config.learner.ranks, kept)
        self.trains = self.attached and rank_name(life, 0) in alive
        self.learner = LearnerGroup(self._start_learner, config.learner.deadline, self.stop, life)
        self.runtimes = {benchmark: runtime(config.actors, benchmark) for benchmark in plan.benchmarks}
        for name in alive:
            if name.startswith("evaluator-"):  # whoever asked it is no more
                parts.kill(name)
        pending = [(steps, policy, number) for steps, policy, number in kept.get("evaluating", ())]
        self.evaluators = EvaluatorGroup(
            self._start_evaluator,
            {name: Patience(plan.part(name).deadline, plan.part(name).copies) for name in plan.benchmarks},
            self.learner,
            pending,
            session.evaluator_died,
            session.evaluation_lost,
        )
        self.counts = plan.counts() | (kept.get("counts") or self.presence.desired)
        self.presence.begin(self.counts, {name: plan.most_actors(name) for name in plan.benchmarks})
        assignments = plan.assignments(self.counts)
        limits = {name: plan.part(name) for name in plan.benchmarks}
        self.fleet = Fleet(
            assignments,
            first_incarnation(folder, alive),
            plan.actor,
            self._start_actor,
            {name: Limits(part.deadline, part.memory * 1e9) for name, part in limits.items()},
            living_actors(parts, alive, assignments),
        )
        self.balancer = Balancer(plan, folder.presence)

    def run(self) -> bool:
        """Train to the step budget; False when a stop was asked for before. Raises RunFailed when a part fails.

        However it ends, the state of then is in a checkpoint, if there are parts to write it.
        """
        try:
            self._begin()
            return self._conduct()
        except LeaseLost:
            raise
        except Stopped as late:
            if self.trains:
                raise RunFailed(f"it was stopped, and its last checkpoint could not be written: {late}") from late
            if not self.saver.newest:  # there is nothing to resume that they would be of use to
                self.shards.close(self.stop)
            return False
        except BaseException:
            if self.trains:
                self._save_at_last()
            raise

    def _begin(self) -> None:
        """Have all parts there, and the learner train. Raises Stopped as soon as that is not wanted any more; what a
        learner that lives has made is worth a wait."""
        patience_s = PARTS_S if self.trains else 0.0
        self._tell_of_shards(self.shards.fresh(self.stop, patience_s))
        self.session.folder.replay_taken(self.take)
        for stats in self.shards.stats if not self.attached else []:
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
            except LearnerLost as error:  # what it had not saved is made up for
                self._replace_learner(error)
                continue
            if completed or self.stop.is_set():
                self.shards.close(self.stop)
                return completed

    def _train(self) -> None:
        """Until the budget is met or a stop is asked for."""
        while not self.stop.is_set():
            self._wait_to_act()
            env_steps = self._tick()
            if self.session.report_due():
                self.balancer.consider(self._report(), self.fleet)
            if self._all_inserted() and self._completed:
                return
            if self.session.evaluation_due(env_steps):
                self._evaluate("deterministic", env_steps)
            if self.saver.saving is None and not self.shards.away and self.session.checkpoint_due(env_steps):
                self.saver.begin(env_steps, self.learner, self.shards)
            self.stop.wait(TICK_S)

    def _wait_to_act(self) -> None:
        """While nobody can tell who conducts this run, all parts go on by themselves. Raises LeaseLost."""
        while not self.presence.may_act():
            time.sleep(TICK_S)

    def _all_inserted(self) -> bool:
        """Whether the budget is met. Actors that end before that are begun anew: a shard that was lost when it was full
        has forgotten the newest of what it took."""
        steps = self.plan.config.steps
        if lowest_inserts(self.shards.stats) < steps and self.fleet.finished:
            self._tell_of_shards(self.shards.fresh(self.stop))
            if lowest_inserts(self.shards.stats) < steps:
                self.fleet.renew()
        return lowest_inserts(self.shards.stats) >= steps

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
        self.session.heard(news.reports)
        for death in news.deaths:
            self.session.records.event("actor_died", death.cause, actor=death.actor, incarnation=death.incarnation)
            reason = death.cause.strip().splitlines()[-1]
            self.session.console.say(f"actor {death.actor} is being replaced: {reason}")
        for actor, incarnation in news.started:
            self.session.records.event("actor_started", actor=actor, incarnation=incarnation)
        self._collect_evaluations()
        self.saver.commit(self.fleet.incarnation)
        return lowest_inserts(self.shards.stats)

    def _tell_of_shards(self, events: list[ShardEvent]) -> None:
        for event in events:
            self.session.shard_event(event.kind, event.reason, event.details)

    def _hear_learner(self) -> None:
        try:
            self.learner.hear()
        except LearnerLost as error:
            self._replace_learner(error)

    def _follow_desired(self) -> None:
        """Have as many actors as `brc scale` asks for."""
        counts = self.presence.desired
        if counts and counts != self.counts:
            self.counts = counts
            self.fleet.resize(self.plan.assignments(counts))
            self.session.records.event("scaled", actors=counts)
            words = ", ".join(f"{benchmark} {count}" for benchmark, count in counts.items())
            self.session.console.say(f"actors wanted: {words}")
            self._keep()

    def _poll_fleet(self) -> Poll:
        try:
            return self.fleet.poll()
        except (RayTaskError, RuntimeError) as error:
            raise RunFailed(f"an actor failed: {error}") from error

    def _start_actor(self, spec: ActorSpec) -> ActorHandle:
        benchmark = spec.tasks[0][1].benchmark
        options = self.parts.place("actors") if "actors" in self.parts.roles else {}
        options |= {"num_cpus": self.plan.part(benchmark).cpus}
        options |= self.parts.named(actor_name(spec.name, [task for task, _ in spec.tasks], spec.incarnation))
        return start_actor(spec, list(self.handles), self.store, self.runtimes[benchmark], **options)

    def _start_evaluator(self, benchmark: str) -> ActorHandle:
        options = self.parts.place("actors") | self.parts.named(f"evaluator-{benchmark}-{uuid.uuid4().hex[:8]}")
        return start_evaluator(self.plan.evaluator(benchmark), self.runtimes[benchmark], **options)

    def _start_learner(self, life: int) -> Any:
        config = self.plan.config.learner
        spec = learner_spec(self.plan, self.device, learner_cores(self.parts))
        loop = LoopSpec(
            self.plan.total_updates,
            config.publish_interval,
            10 * config.batches_per_request,
            config.requests_in_flight,
            ranks(self.plan),
            config.deadline,
            self.session.folder.checkpoints.url(self.saver.newest) if self.saver.newest else "",
            None if self.saver.newest else find_origin(self.plan),
            str(self.session.folder.path.absolute()),
            config.profile if life == 0 else 0,
            life,
            tuple(self.plan.shards[0].storage.probabilities),
        )
        names = [rank_name(life, rank) for rank in range(config.ranks)]
        group = f"learner-{life}"
        if set(self.parts.alive()).issuperset(names):
            with suppress(ValueError):  # one has died since
                found = [self.parts.find(name) for name in names]
                return found, self.parts.group(group) if config.ranks > 1 else None
        gpus = 1.0 if self.device == "cuda" else 0.0
        return start_ranks(
            spec,
            loop,
            list(self.handles),
            self.store,
            gpus,
            self.parts.place("learner"),
            lambda rank: self.parts.named(names[rank]),
            self.parts.full_name(group),
        )

    def _replace_learner(self, error: LearnerLost) -> None:
        """A new learner from the newest checkpoint, or from nothing before the first. Replay and actors go on under
        the limiter meanwhile."""
        saver = self.saver
        saving = saver.saving is not None or saver.died_saving
        if saver.saving is not None:
            if not answered(saver.saving.learner):
                self.learner.kill()  # nobody is to wait for what will not be written
            if not saver.commit(self.fleet.incarnation, self.stop):
                self.session.checkpoint_soon()
        records = self.session.records
        # One that dies whenever it saves would otherwise make the same updates for ever.
        ready, lost = self.learner.replace(
            saving, lambda cause, updates: records.event("learner_died", cause, updates=updates), error
        )
        self._keep()
        records.event("learner_restarted", lost_updates=lost, **ready)
        self.session.console.say(
            f"the learner died at {ready['updates'] + lost:,} updates and goes on from {ready['updates']:,}, making up "
            f"for the rest"
        )

    def _report(self) -> dict[str, Any]:
        fleet = self.fleet
        row = self.session.progress.row(fleet.reports, fleet.stats(), self.learner.report, self.shards.stats)
        self.session.report(row)
        self._keep()
        return row

    def _keep(self) -> None:
        """Write down what a coordinator that takes over is to know, and what only this one has seen."""
        self.session.folder.keep(
            self.session.state()
            | {
                "shards": self.shards.stats,
                "life": self.learner.lives,
                "incarnation": self.fleet.incarnation,
                "counts": self.counts,
                "evaluating": self.evaluators.pending,
            }
        )

    def _evaluate(self, policy: str, env_steps: int, last: bool = False) -> None:
        self.evaluators.ask(env_steps, policy, self.session.next_evaluation_number(), last)

    def _collect_evaluations(self) -> None:
        for evaluation, env_steps in self.evaluators.collect(self._learner_was_lost):
            self.session.evaluated(evaluation, env_steps)

    def _learner_was_lost(self) -> bool:
        """Whether it cannot answer, in which case it is replaced now."""
        try:
            self.learner.refresh()
        except LearnerLost as error:
            self._replace_learner(error)
            return True
        return False

    def _finish(self) -> bool:
        """Stop the loops, write the last checkpoint, and evaluate the final policy if the budget was met; returns
        whether all that was done. Raises LearnerLost when the learner died meanwhile."""
        self._wait_to_act()
        self.saver.commit(self.fleet.incarnation, self.stop)
        all_answer(self.fleet.stop(), FLEET_S, self.stop, PARTS_S / 2)
        self.learner.ask("stop")
        self.learner.refresh()
        self._tick()
        self._tell_of_shards(self.shards.fresh(self.stop))
        self._report()  # that all is made: what follows may take long
        env_steps = lowest_inserts(self.shards.stats)
        for tries_left in reversed(range(SAVES)):
            self.saver.begin(env_steps, self.learner, self.shards)
            if self.saver.commit(self.fleet.incarnation, self.stop):
                break
            self.learner.refresh()  # if it was the learner that died, another can write it
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
        """Until all are made, or given up. What is not there soon after a stop is not waited for; whether all were."""
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
        """Before the run ends by a fault: write what there is, if learner and shards can. The fault is what is told in
        the end, whatever comes of this."""
        limit = self.stop if self.stop.is_set() else Stop()
        limit.set()
        with suppress(Exception):
            try:
                self.saver.commit(self.fleet.incarnation, limit)
                self._tell_of_shards(self.shards.fresh(limit))
                if not (self.saver.newest or self.learner.report.get("updates")):
                    return  # nothing was learned: the run's name stays free
                env_steps = lowest_inserts(self.shards.stats)
                self.saver.begin(env_steps, self.learner, self.shards)
                if self.saver.commit(self.fleet.incarnation, limit):
                    self.session.console.say(f"a last checkpoint was written at {env_steps:,} steps")
            except Exception as error:
                self.session.console.say(f"no last checkpoint could be written: {error}")
