"""Parts of a run as objects of this process, which a serial run calls one after the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from actors.actor import Actor, make_environments
from actors.backends.recorded import RecordedEnvironment
from actors.closing import close_in_time
from actors.evaluator import Evaluator
from cluster.plan.learner_plan import learner_spec
from cluster.plan.plan import Plan
from cluster.run.folder import RunFolder
from cluster.run.replay_plan import shard_specs
from learner.config import Device
from learner.learner import Learner
from learner.state import dcp
from replay.client.handle import LocalShard
from replay.client.sampler import Sampler
from replay.client.writer import Writer
from replay.policy_store import PolicyStore
from replay.shard import Shard


@dataclass(frozen=True)
class LocalLearner:
    """A learner and its sampler."""

    learner: Learner
    sampler: Sampler


@dataclass(frozen=True)
class LocalActor:
    """An actor and its environments, one for each task."""

    actor: Actor
    environments: list[RecordedEnvironment]


@dataclass(frozen=True)
class InProcess:
    """Make the parts of a run. The learner is restored from the checkpoint that the run resumes from, if any.

    Attributes:
        incarnation: incarnation of the actor.
        states: state of the environment of each task; None for an environment that begins anew.
    """

    plan: Plan
    folder: RunFolder
    device: Device
    incarnation: int
    states: Sequence[Any]

    def shards(self) -> list[Shard]:
        made = [Shard(spec) for spec in shard_specs(self.plan, self.folder)]
        self.folder.replay_taken(self.folder.takes + 1)
        return made

    def store(self) -> PolicyStore:
        return PolicyStore()

    def learner(self, shards: list[Shard], store: PolicyStore) -> LocalLearner:
        plan, checkpoints, name = self.plan, self.folder.checkpoints, self.folder.checkpoint
        spec = learner_spec(plan, self.device)
        learner = Learner(dcp.continued(spec, checkpoints.url(name)) if name else spec)
        if name:
            dcp.load(learner, checkpoints.url(name))
        sampler = Sampler(
            [LocalShard(shard) for shard in shards],
            plan.config.learner.batches_per_request,
            depth=1,
            received=learner.consumed,
            probabilities=tuple(plan.shards[0].storage.probabilities),
        )
        return LocalLearner(learner, sampler)

    def evaluators(self, learner: LocalLearner) -> Evaluator:
        return Evaluator(self.plan.evaluator())

    def actors(self, shards: list[Shard], store: PolicyStore) -> LocalActor:
        spec = self.plan.actor(self.plan.everything(), self.incarnation)
        made = make_environments(spec, exact=True)
        environments = [RecordedEnvironment(one, state) for one, state in zip(made, self.states, strict=True)]
        try:
            writer = Writer(spec.writer_name, [LocalShard(shard) for shard in shards])
            return LocalActor(Actor(spec, environments, writer, store), environments)
        except BaseException:
            close_in_time(environments)
            raise
