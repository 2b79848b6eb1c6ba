"""Everything that decides the shape of an agent's networks."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any

from learner.config import LearnerConfig

IMPALA_CHANNELS = (16, 32, 32)


@dataclass(frozen=True, kw_only=True)
class NetworkSpec:
    """The shape of an agent's networks. Agents whose specs differ cannot load each other's checkpoints."""

    observation_size: int
    action_size: int
    num_tasks: int
    privileged_size: int = 0  # numbers behind an observation that only the critic sees
    width: int = LearnerConfig.width
    depth: int = LearnerConfig.depth
    heads: int = LearnerConfig.heads
    policy_width: int = LearnerConfig.policy_width
    policy_depth: int = LearnerConfig.policy_depth
    embedding_size: int = LearnerConfig.embedding_size
    num_bins: int = LearnerConfig.num_bins
    embedding_norm: str = LearnerConfig.embedding_norm
    num_actions: tuple[int, ...] = ()  # actions of each task, where actions are discrete
    image: tuple[int, ...] = ()  # (frames, height, width), where observations are images
    encoder_width: int = LearnerConfig.encoder_width  # multiplies the image encoder's channels
    normalize_observations: bool = LearnerConfig.normalize_observations
    agent: str = LearnerConfig.agent  # a name in learner.agents.catalogue
    conditioning: str = LearnerConfig.conditioning
    network: str = LearnerConfig.network  # a name in ARCHITECTURES, or registered by another package

    @property
    def discrete(self) -> bool:
        return bool(self.num_actions)

    @property
    def most_actions(self) -> int:
        """The largest number of actions of any task."""
        return max(self.num_actions)

    @property
    def outputs(self) -> int:
        """The number of outputs of a critic head for one row."""
        return self.num_bins * (self.most_actions if self.discrete else 1)

    @property
    def observation_shape(self) -> tuple[int, ...]:
        """The shape of an observation, as policies see it."""
        return self.image or (self.observation_size,)

    @property
    def critic_shape(self) -> tuple[int, ...]:
        """The shape of an observation in a batch, as critics see it: behind what policies see are the privileged
        numbers."""
        return self.image or (self.observation_size + self.privileged_size,)

    @property
    def embedding_inputs(self) -> int:
        """The number of columns that tell networks the task of a row; 0 for a single task, and without conditioning or
        with a head for every task."""
        return 0 if self.conditioning == "heads" else self.task_size

    @property
    def task_size(self) -> int:
        """The size of the input `task` of networks; 0 where they have none."""
        if self.num_tasks == 1 or self.conditioning == "none":
            return 0
        return self.embedding_size if self.conditioning == "embedding" else self.num_tasks

    @property
    def output_tasks(self) -> int:
        """The number of tasks that have output layers of their own; 1 if all share them."""
        return self.num_tasks if self.conditioning == "heads" else 1

    @property
    def learned_embeddings(self) -> int:
        """The number of numbers in the table of learned task embeddings; 0 without one."""
        return self.num_tasks * self.task_size if self.conditioning == "embedding" else 0


def network_spec(config: LearnerConfig, **of_tasks: Any) -> NetworkSpec:
    """Return the spec that a configuration describes. `of_tasks` are the fields that depend on the tasks."""
    shape = {field.name: getattr(config, field.name) for field in fields(NetworkSpec) if hasattr(config, field.name)}
    return NetworkSpec(**shape | {"num_bins": config.outputs} | of_tasks)


def to_json(spec: NetworkSpec) -> dict[str, Any]:
    """Return the fields of a spec, with lists instead of tuples."""
    return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(spec).items()}


def from_json(saved: dict[str, Any]) -> NetworkSpec:
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in saved.items()}
    return NetworkSpec(**fields)
