"""`brc train PRESET --dry-run`: what a run would be, without beginning it."""

from __future__ import annotations

import os

from cluster.config.paths import absolute
from cluster.config.schema import Config
from cluster.plan.plan import Plan
from cluster.preflight.origin import check_origin
from cluster.preflight.ray_address import is_cluster
from cluster.preflight.validation import check, validate
from dashboards.sinks.console import size
from learner.agents.catalogue import described
from learner.networks.sizes import parameters
from learner.scale.reckoning import update_flops


def show_plan(config: Config, preset: str, seeds: tuple[int, ...] = ()) -> int:
    """Print the plan of a run, or of each of several. Raises ConfigError if it cannot work. On a cluster its nodes are
    not looked at."""
    config = absolute(config)
    plan = check(config) if is_cluster(os.environ.get("RAY_ADDRESS", "")) else validate(config)
    check_origin(plan)
    if seeds:
        print(f"{'runs':10s} {len(seeds)} such runs, with seeds {' '.join(map(str, seeds))}")
    for name, text in lines(plan, preset):
        print(f"{name:10s} {text}")
    return 0


def lines(plan: Plan, preset: str) -> list[tuple[str, str]]:
    """Return the plan as (name, text)."""
    config, learner, networks = plan.config, plan.config.learner, plan.networks
    shown = networks.image or (networks.observation_size,)
    observed = " x ".join(map(str, shown)) + (
        f" and {plan.privileged_size} for the critic" * bool(plan.privileged_size)
    )
    actions = f"{plan.most_actions} actions" if plan.most_actions else f"actions of {plan.action_size}"
    found = [
        (
            "run",
            f"{preset}, {config.execution}, seed {config.seed}: {len(plan.tasks)} tasks, {config.steps:,} steps each",
        ),
        ("tasks", f"{' '.join(task.name for task in plan.tasks)}: observations of {observed}, {actions}"),
    ]
    if config.execution == "distributed" and not is_cluster(os.environ.get("RAY_ADDRESS", "")):
        for benchmark, count in plan.counts().items():
            part = plan.part(benchmark)
            found.append(("actors", f"{benchmark}: {count}, {part.copies} copies of each task in one"))
    sizes = {name: parameters(network) for name, network in described(networks).networks(networks).items()}
    kind = f"{learner.network}, width {learner.width}, batch {learner.batch_size}"
    found += [
        ("networks", f"{kind}; parameters: {', '.join(f'{name} {count:,}' for name, count in sizes.items())}"),
        ("updates", f"{plan.total_updates:,} of {sum(update_flops(networks, learner)):,} floating-point operations"),
    ]
    found.append(("ratio", f"samples per insert {plan.samples_per_insert:.2f}"))
    found += [
        ("replay", f"{size(plan.replay_bytes)} in {len(plan.shards)} shards, {config.replay.capacity:,} rows a task"),
        ("learner", f"{size(sum(plan.learner_bytes.values()))} for each of {learner.ranks} ranks, if on a CPU"),
        ("evaluation", f"every {config.evaluation.interval:,} steps, {config.evaluation.episodes} episodes a task"),
    ]
    return found
