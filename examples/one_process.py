"""01: environments, actor, replay and learner in one process: `python -m examples.one_process`."""

from __future__ import annotations

from dataclasses import replace

from actors import Actor, Evaluator, make_environments
from cluster import PRESETS, make_plan
from cluster.plan.learner_plan import learner_spec
from learner import Learner
from replay import LocalShard, PolicyStore, Sampler, Shard, Writer


def main(steps: int = 4000) -> dict[str, float]:
    """Train on one task for `steps` environment steps. Return the mean returns before and after, over 10 episodes."""
    preset = PRESETS["quickstart"]()
    plan = make_plan(
        replace(
            preset,
            tasks=("dmc/cartpole-balance",),
            steps=steps,
            execution="serial",
            replay=replace(preset.replay, warmup=1000),
        )
    )
    shards = [LocalShard(Shard(spec)) for spec in plan.shards]
    store = PolicyStore()
    learner = Learner(learner_spec(plan, "cpu"))
    sampler = Sampler(shards, plan.config.learner.batches_per_request, depth=1)
    acting = plan.actor(plan.everything(), 0)
    actor = Actor(acting, make_environments(acting), Writer(acting.writer_name, shards), store)
    evaluator = Evaluator(plan.evaluator())
    task = plan.tasks[0].name

    before = evaluator.evaluate(None, 0).returns[task]  # the random policy
    while not actor.writer.finished:
        actor.step()
        while (reply := sampler.take_due()) is not None and reply.batches is not None:
            learner.train(reply.batches, reply.shard).finish()  # as many updates as the steps allow
            store.put(learner.policy())
    after = evaluator.evaluate(learner.policy(), 1).returns[task]
    actor.close()
    return {"before": sum(before) / len(before), "after": sum(after) / len(after)}


if __name__ == "__main__":
    print(main())
