"""Which agent learns what: one for continuous actions, one for discrete ones."""

from __future__ import annotations

from learner.agents import brc, discrete
from learner.agents.interface import Agent
from learner.networks.spec import NetworkSpec


def agent_of(spec: NetworkSpec) -> Agent:
    """The agent whose networks these are."""
    return discrete.AGENT if spec.discrete else brc.AGENT
