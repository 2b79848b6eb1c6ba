"""The configuration of a run: frozen dataclasses whose fields, defaults and docstrings are its documentation."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

# A job on a cluster runs in a folder that goes away with it.
RUNS = str(Path(os.environ.get("BRC_HOME", "")) / "runs")


@dataclass(frozen=True)
class LearnerConfig:
    """The agent and its updates. Defaults are the reference implementation's."""

    network: str = "bronet"
    """What critic and policy are made of: bronet, or a network that another package registers."""
    width: int = 4096
    """Hidden width of each critic head; 4096 gives 137 M parameters."""
    depth: int = 2
    """Residual blocks of each critic head."""
    heads: int = 2
    """Critics in the ensemble; their probabilities are averaged."""
    policy_width: int = 256
    """Hidden width of the policy."""
    policy_depth: int = 1
    """Residual blocks of the policy."""
    embedding_size: int = 32
    """Length of a task embedding; unused when there is a single task."""
    embedding_norm: Literal["l2", "l1"] = "l2"
    """Norm that task embeddings are scaled to: l2 as in the published code, l1 as in the paper's text."""
    encoder_width: int = 1
    """Multiplies the channels of the encoder of images, 16, 32 and 32."""
    loss: Literal["categorical", "mse"] = "categorical"
    """What the critic learns: a distribution over returns by cross-entropy, as the paper, or their mean by squared
    error."""
    num_bins: int = 101
    """Atoms of the categorical value distribution; of no meaning with mse."""
    value_limit: float = 10.0
    """The value support is [-value_limit, value_limit]; rewards are scaled to fill it."""
    normalize_observations: bool = False
    """Whether networks see observations less their running mean, divided by their running deviation."""
    batch_size: int = 1024
    """Rows in an update, drawn over all tasks."""
    updates_per_step: float = 2.0
    """Updates per environment step of every task."""
    discount: float = 0.99
    """Discount of future rewards."""
    n_step: int = 1
    """Environment steps whose rewards an update's target sums before it looks to the target network."""
    polyak: float = 0.005
    """Step of the target network towards the critic after every update."""
    learning_rate: float = 3e-4
    """Learning rate of critic, policy and temperature."""
    weight_decay: float = 1e-4
    """AdamW's decay of every parameter of critic and policy."""
    initial_temperature: float = 0.1
    """Entropy temperature before the first update."""
    target_entropy_per_action: float = -0.5
    """Target entropy per action dimension of the widest task."""
    precision: Literal["auto", "float64", "float32", "tf32", "bf16"] = "auto"
    """Precision of the networks' products; parameters are float32, with float64 that. auto is float32 or, where the
    device has instructions for it, bf16, which learns alike: whichever makes updates faster, as measured when a run
    begins. Without a measurement, as on GPUs, at great widths and in serial execution, it is bf16, on a CPU from width
    256. A resumed run keeps it."""
    compile: bool = False
    """Have torch compile the networks' blocks, and a GPU of its own record whole requests of updates and replay them.
    It takes up to a minute when the learner begins."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where updates run; auto takes a GPU if there is one."""
    threads: int = 0
    """CPU threads of each of the learner's ranks. 0 divides all cores of the machine among them, of which as many are
    used as make updates fastest, measured when a run begins and while it goes on; in serial execution all."""
    checkpoints: str = ""
    """Folder or URL, such as s3://bucket/folder, for the learner's part of checkpoints; empty is the run's folder."""
    ranks: int = 1
    """Processes that make every update together, each with a GPU if that is the device."""
    sharding: Literal["auto", "replicate", "shard"] = "auto"
    """Whether ranks hold all of the critic each, or a part; auto shards those of 30 million parameters and more."""
    replicas: int = 1
    """Copies of a sharded critic among the ranks: one for each node sends less between nodes."""
    deadline: float = 120.0
    """Seconds that ranks wait for one that does not answer before all are started again."""
    profile: int = 0
    """Updates to trace, about, when the learner has begun; learner-trace.json.gz in the run's folder. 0 traces none."""
    publish_interval: int = 16
    """Updates between two published policies."""
    batches_per_request: int = 4
    """Batches that one sample request may bring."""
    requests_in_flight: int = 2
    """Sample requests under way while an update runs."""


@dataclass(frozen=True)
class ActorsConfig:
    """Who steps the environments. The tasks of each benchmark have actors of their own."""

    count: int = 0
    """Actor processes of a benchmark; 0 divides one for each core but one among benchmarks, at most one a task."""
    copies: int = 4
    """Copies of each task in an actor that serves it, stepped together."""
    threads: int = 1
    """Threads of each task's environment pool."""
    backend: Literal["envpool", "dm_control", "ale-py"] = "envpool"
    """Library that runs tasks that several have: those of dm_control, and Atari's."""
    balance: Literal["fixed", "auto"] = "fixed"
    """auto moves actors from benchmarks that wait to the one that all wait for, as long as the learner waits too."""
    cpus: float = 1.0
    """CPUs that Ray sets aside for an actor. Those that it cannot place wait until it can."""
    deadline: float = 120.0
    """Seconds without a step, other than to wait for replay, after which an actor is replaced, or an evaluator."""
    memory: float = 8.0
    """Gigabytes of an actor's memory above which it is replaced."""
    runtime: dict[str, str] = field(default_factory=dict)
    """Packages of a benchmark's actors and evaluator: names and files with a Ray runtime environment in YAML, such as
    humanoid-bench actors/humanoid_bench.yaml; the run's own if not named."""
    of: dict[str, float] = field(default_factory=dict)
    """What a benchmark's actors have instead of the above: names and numbers, such as dmc.count 32 metaworld.copies 2;
    count, copies, threads, cpus, deadline and memory can be named."""


@dataclass(frozen=True)
class ExplorationConfig:
    """How tasks with discrete actions are explored. Others are by the policy's own noise."""

    epsilon: float = 0.01
    """Share of actions that are random in the end."""
    steps: int = 10_000
    """Environment steps of each task, after warm-up, in which that share falls from 1."""


@dataclass(frozen=True)
class AtariConfig:
    """How Atari games are played, in training and evaluation alike."""

    frame_skip: int = 4
    """Frames that an action is held for."""
    stack: int = 4
    """Frames in an observation."""
    size: int = 84
    """Height and width that frames are scaled to; a learner on a CPU gains a factor of four from 42."""
    sticky: float = 0.25
    """Chance of every frame that the action before is held instead; the Atari 100k benchmark has none."""
    one_life: bool = False
    """Whether an episode of training ends with the first life lost, and the game begins anew; not in evaluation."""
    full_actions: bool = True
    """Whether all games have the joystick's 18 actions, or each those that mean something in it."""
    noop_max: int = 30
    """An episode begins with up to so many frames in which nothing is done."""


@dataclass(frozen=True)
class ReplayConfig:
    """Where transitions are kept and how sampling and inserting are held together."""

    capacity: int = 1_000_000
    """Transitions kept of each task, over all shards."""
    observation_dtype: Literal["float32", "float16"] = "float32"
    """Type that observations are kept and sent in; float16 halves the memory and keeps three digits. Observations
    beyond its range are clipped to 65504, which is counted, and told once a task."""
    task_weights: dict[str, float] = field(default_factory=dict)
    """How often tasks are drawn, relative to others: names and numbers, such as dmc/dog-run 2.0; 1 if not named."""
    directory: str = ""
    """Folder for the files that replay is kept in while a run lives; empty is shared memory, or the run's folder if
    that has no room. The files outlive processes, not the system that these run on."""
    snapshots: str = ""
    """Folder or URL, such as s3://bucket/folder, for replay's part of checkpoints; empty is the run's folder."""
    shards: int = 1
    """Replay processes."""
    segment_length: int = 32
    """Transitions that an actor collects of each copy before it pushes them."""
    warmup: int = 5000
    """Environment steps of each task, taken at random, before the first update."""
    max_ahead: int = 0
    """Environment steps by which acting may be ahead of learning; 0 means two pushes of an actor."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Scoring with the deterministic policy."""

    interval: int = 25_000
    """Environment steps of each task between evaluations; 0 evaluates only before and after."""
    episodes: int = 10
    """Episodes of each task in an evaluation; at most 64 of all tasks are played at a time, fewer by memory."""


@dataclass(frozen=True)
class MetricsConfig:
    """Who is told of a live run's metrics, besides its folder."""

    serve: bool = True
    """Answer Prometheus while the run lives."""
    port: int = 0
    """Port to answer at; 0 takes any that is free, and Prometheus is told which."""
    address: str = ""
    """Address of this machine to answer at; empty is 127.0.0.1, on a cluster the head's own."""
    targets: str = ""
    """Folder where Prometheus finds whom to ask, a file for each run; empty is .prometheus in the folder of runs."""


@dataclass(frozen=True)
class Config:
    """A run: one agent on a list of tasks."""

    tasks: tuple[str, ...] = ()
    """Names of tasks and suites, such as dmc/dog-run or dmc-dogs."""
    steps: int = 1_000_000
    """Environment steps of each task after which the run ends."""
    seed: int = 0
    """Seed of networks, environments, exploration and sampling."""
    name: str = ""
    """Name of the run's folder; empty makes one from the preset and the time."""
    origin: str = ""
    """Folder of a run whose agent this one begins with; `brc add-task` sets it."""
    origin_embedding: str = "mean"
    """What a task that the origin did not have begins with as its embedding: mean of all tasks there, random, or the
    name of a task there that is like it."""
    resume: bool = False
    """Go on with the run of this name from its newest checkpoint."""
    execution: Literal["distributed", "serial"] = "distributed"
    """distributed runs the parts as Ray processes; serial runs them in lock step in one, bit-identical for a seed."""
    runs_folder: str = RUNS
    """Folder that holds a folder for each run; on a cluster's head it is in BRC_HOME, ~/.brc."""
    checkpoint_interval: int = 100_000
    """Environment steps of each task between checkpoints; 0 writes one only at the end or when stopped."""
    keep_checkpoints: int = 2
    """Checkpoints kept; older ones are removed."""
    report_interval: float = 5.0
    """Seconds between two rows of metrics and two refreshes of the console."""
    wandb: str = ""
    """Project of Weights & Biases, such as entity/project, that gets the run's metrics as well; empty is none."""
    ray_folder: str = ""
    """Folder of a local Ray's sessions and logs, with a path of at most 43 bytes; empty is Ray's own choice, `ray` in
    RAY_TMPDIR, TMPDIR or /tmp, or a short one in /tmp if that is longer or another user's."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    actors: ActorsConfig = field(default_factory=ActorsConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    atari: AtariConfig = field(default_factory=AtariConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
