"""The catalogue of agents: the kind of tasks that each is for, its networks, and how it acts. It imports no torch.

Another package registers an agent by an entry point of the group `brc.agents`, whose value is a Description.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Literal

from learner.agents.acting import ALWAYS_GREEDY, Acting, Epsilon
from learner.networks import registry
from learner.networks.description import Network
from learner.networks.spec import NetworkSpec
from learner.registered import registered

if TYPE_CHECKING:
    from learner.agents.interface import Agent

GROUP = "brc.agents"  # the group of entry points by which other packages register agents
AUTO = "auto"


@dataclass(frozen=True)
class Description:
    """Description of an agent. Nothing of the agent is loaded or made for it.

    Attributes:
        actions: kind of actions of the tasks that the agent is for.
        networks: (spec) -> its networks by their names in checkpoints. One of them is `critic`.
        acts: name of the network that actors run. An agent that acts with its critic cannot be sharded: the network
            that actors run is published whole.
        choice: how an action is chosen from its output: the tanh of a normal draw, or the action of greatest value.
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


# The keys are values of --learner.agent; `auto` is the first agent for the kind of actions of a run's tasks.
AGENTS = {
    "brc": Description("continuous", brc, "policy", "tanh_normal", "learner.agents.brc:AGENT"),
    "discrete-brc": Description("discrete", discrete_brc, "critic", "greedy", "learner.agents.discrete:AGENT"),
}


@cache
def description(name: str, actions: Literal["continuous", "discrete"]) -> Description:
    """Return the agent of this name; `auto` is the first one for these actions. Raises ValueError, with the known
    names, if there is none."""
    if name == AUTO:
        return next(one for one in AGENTS.values() if one.actions == actions)
    return registered("agent", name, AGENTS, GROUP, also=[AUTO])


def described(spec: NetworkSpec) -> Description:
    """Return the description of the agent whose networks these are."""
    return description(spec.agent, "discrete" if spec.discrete else "continuous")


def agent_of(spec: NetworkSpec) -> Agent:
    """Return the algorithm of the agent. This imports torch."""
    module, _, name = described(spec).algorithm.partition(":")
    found: Agent = getattr(import_module(module), name)
    return found


def acting(spec: NetworkSpec, epsilon: Epsilon = ALWAYS_GREEDY) -> Acting:
    """Return how actors act with the published network. Only the greedy choice explores by `epsilon`."""
    found = described(spec)
    network = found.networks(spec)[found.acts]
    if found.choice == "greedy":
        return Acting(network, found.choice, spec.num_actions, epsilon)
    return Acting(network, found.choice)
