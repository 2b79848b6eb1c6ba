"""Parts of a run as Ray processes, which a coordinator keeps alive."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup

from actors.actor import ActorSpec
from actors.fleet import Fleet, Limits
from actors.process import start_actor, start_evaluator
from cluster.backend.nodes import learner_cores
from cluster.backend.parts import Parts
from cluster.plan.learner_plan import learner_spec
from cluster.plan.plan import Plan
from cluster.plan.runtime import runtime
from cluster.preflight.origin import find_origin
from cluster.run.replay_plan import shard_specs
from cluster.run.session import Session
from cluster.supervise.evaluators import EvaluatorGroup, Patience
from cluster.supervise.learner_group import LearnerGroup
from cluster.supervise.recovery import Survivors, actor_name, living_actors, rank_name
from cluster.supervise.shards import ShardGroup
from learner.config import Device
from learner.process import start_ranks
from learner.spec import LoopSpec
from replay.client.handle import ShardHandle
from replay.policy_store import PolicyStore


@dataclass(frozen=True)
class OnRay:
    """Make the parts of a run, or take over parts that an earlier coordinator has left alive.

    Attributes:
        live: folder for the shards' files.
        newest: returns the name of the newest checkpoint, or ""; called whenever a learner begins.
        counts: wanted actors by benchmark.
    """

    plan: Plan
    session: Session
    live: Path
    device: Device
    parts: Parts
    found: Survivors
    newest: Callable[[], str]
    counts: dict[str, int]

    def shards(self) -> ShardGroup:
        kept = self.found.kept
        specs = shard_specs(self.plan, self.session.folder, self.live, self.found.take)
        return ShardGroup(specs, self.parts, kept.shards if kept else ())

    def store(self) -> ActorHandle:
        options = {"num_cpus": 0} | self.parts.place("learner") | self.parts.named("policies")
        options |= {"get_if_exists": True, "max_restarts": -1, "max_concurrency": 2}
        handle: ActorHandle = ray.remote(PolicyStore).options(**options).remote(ray.put)
        return handle

    def learner(self, shards: ShardGroup, store: ActorHandle) -> LearnerGroup:
        def start(life: int) -> tuple[list[ActorHandle], PlacementGroup | None]:
            return self._ranks(life, list(shards.handles), store)

        stop = self.session.folder.presence.stop
        return LearnerGroup(start, self.plan.config.learner.deadline, stop, self.found.life)

    def evaluators(self, learner: LearnerGroup) -> EvaluatorGroup:
        plan, session, kept = self.plan, self.session, self.found.kept
        runtimes = self._runtimes()

        def start(benchmark: str) -> ActorHandle:
            options = self.parts.place("actors") | self.parts.named(f"evaluator-{benchmark}-{uuid.uuid4().hex[:8]}")
            return start_evaluator(plan.evaluator(benchmark), runtimes[benchmark], **options)

        patience = {name: Patience(plan.part(name).deadline, plan.part(name).copies) for name in plan.benchmarks}
        pending = list(kept.evaluating) if kept else []
        return EvaluatorGroup(start, patience, learner, pending, session.evaluator_died, session.evaluation_lost)

    def actors(self, shards: ShardGroup, store: ActorHandle) -> Fleet:
        plan, runtimes = self.plan, self._runtimes()

        def start(spec: ActorSpec) -> ActorHandle:
            benchmark = spec.tasks[0][1].benchmark
            options = self.parts.place("actors") if "actors" in self.parts.roles else {}
            options |= {"num_cpus": plan.part(benchmark).cpus, "num_gpus": plan.part(benchmark).gpus}
            options |= self.parts.named(actor_name(spec.name, [task for task, _ in spec.tasks], spec.incarnation))
            return start_actor(spec, list(shards.handles), store, runtimes[benchmark], **options)

        assignments = plan.assignments(self.counts)
        limits = {name: Limits(plan.part(name).deadline, plan.part(name).memory * 1e9) for name in plan.benchmarks}
        living = living_actors(self.parts, self.found.alive, assignments)
        return Fleet(assignments, self.found.first_incarnation, plan.actor, start, limits, living)

    def _runtimes(self) -> dict[str, dict[str, Any]]:
        """Return the runtime environment, by benchmark, of its actors and evaluator."""
        return {benchmark: runtime(self.plan.config.actors, benchmark) for benchmark in self.plan.benchmarks}

    def _ranks(
        self, life: int, handles: list[ShardHandle], store: ActorHandle
    ) -> tuple[list[ActorHandle], PlacementGroup | None]:
        """Return the ranks of this life and their placement group: the living ranks if all live, else new ranks."""
        config = self.plan.config.learner
        names = [rank_name(life, rank) for rank in range(config.ranks)]
        group = f"learner-{life}"
        if set(self.parts.alive()).issuperset(names):
            with suppress(ValueError):  # a rank has died since
                found = [self.parts.find(name) for name in names]
                return found, self.parts.group(group) if config.ranks > 1 else None
        return start_ranks(
            learner_spec(self.plan, self.device, learner_cores(self.parts)),
            self._loop(life),
            handles,
            store,
            self.plan.rank_gpus if self.device == "cuda" else 0.0,
            self.parts.place("learner"),
            lambda rank: self.parts.named(names[rank]),
            self.parts.full_name(group),
        )

    def _loop(self, life: int) -> LoopSpec:
        config, newest = self.plan.config.learner, self.newest()
        return LoopSpec(
            total_updates=self.plan.total_updates,
            publish_interval=config.publish_interval,
            diagnostics_interval=10 * config.batches_per_request,
            requests_in_flight=config.requests_in_flight,
            ranks=self.plan.ranks(self.device),
            reckoned={str(way): seconds for way, seconds in self.plan.reckoned(self.device).items()},
            deadline_s=config.deadline,
            checkpoint=self.session.folder.checkpoints.url(newest) if newest else "",
            origin=None if newest else find_origin(self.plan),
            evidence=str(self.session.folder.path.absolute()),
            profile=config.profile if life == 0 else 0,
            life=life,
            probabilities=tuple(self.plan.shards[0].storage.probabilities),
        )
