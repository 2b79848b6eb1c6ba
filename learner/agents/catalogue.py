"""The agents there are: which tasks each is for, its networks, and how it acts. It imports no torch.

An agent of another package is registered by an entry point of the group `brc.agents`, whose value is a Description.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Literal

from learner.agents.acting import ALWAYS_GREEDY, Acting, Epsilon
from learner.networks import registry
from learner.networks.description import Network
from learner.networks.spec import NetworkSpec

if TYPE_CHECKING:
    from learner.agents.interface import Agent

GROUP = "brc.agents"  # of entry points, by which others register theirs
AUTO = "auto"


@dataclass(frozen=True)
class Description:
    """An agent, before anything of it is made.

    Attributes:
        actions: of the tasks that it is for.
        networks: (spec) -> its networks by their names in checkpoints. One of them is `critic`.
        acts: the name of the one that actors run. An agent that acts with its critic cannot be sharded: what actors run
            is published whole.
        choice: how an action comes of its output: the tanh of a normal draw, or the greatest of categorical values.
        algorithm: `module:name` of its interface.Agent.
    """

    actions: Literal["continuous", "discrete"]
    networks: Callable[[NetworkSpec], dict[str, Network]]
    acts: str
    choice: Literal["tanh_normal", "greedy"]
    algorithm: str


def brc(spec: NetworkSpec) -> dict[str, Network]:
    critic = registry.critic(spec)
    return {"critic": critic, "target": critic, "policy": registry.policy(spec)}


def discrete_brc(spec: NetworkSpec) -> dict[str, Network]:
    critic = registry.discrete_critic(spec)
    return {"critic": critic, "target": critic}


# By the name of --learner.agent; `auto` is the first one for the actions of a run's tasks.
AGENTS = {
    "brc": Description("continuous", brc, "policy", "tanh_normal", "learner.agents.brc:AGENT"),
    "discrete-brc": Description("discrete", discrete_brc, "critic", "greedy", "learner.agents.discrete:AGENT"),
}


@cache
def description(name: str, actions: Literal["continuous", "discrete"]) -> Description:
    """The agent of this name; `auto` is the one for these actions. Raises ValueError, with the names that there are."""
    if name == AUTO:
        return next(one for one in AGENTS.values() if one.actions == actions)
    if name in AGENTS:
        return AGENTS[name]
    others = {point.name: point for point in entry_points(group=GROUP)}
    if name not in others:
        raise ValueError(f"there is no agent {name!r}; there are {', '.join([AUTO, *AGENTS, *others])}")
    found: Description = others[name].load()
    return found


def described(spec: NetworkSpec) -> Description:
    """The agent whose networks these are."""
    return description(spec.agent, "discrete" if spec.discrete else "continuous")


def agent_of(spec: NetworkSpec) -> Agent:
    """Its algorithm, which imports torch."""
    module, _, name = described(spec).algorithm.partition(":")
    found: Agent = getattr(import_module(module), name)
    return found


def acting(spec: NetworkSpec, epsilon: Epsilon = ALWAYS_GREEDY) -> Acting:
    """How actors act with what the agent publishes. Only a greedy choice explores by `epsilon`."""
    found = described(spec)
    network = found.networks(spec)[found.acts]
    if found.choice == "greedy":
        return Acting(network, found.choice, spec.num_actions, epsilon)
    return Acting(network, found.choice)
