"""The configuration of a run: frozen dataclasses whose fields, defaults and docstrings are its documentation."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from learner.config import LearnerConfig
from replay.setting import setting

# BRC_HOME is for clusters: the folder that a cluster's job runs in is deleted with the job.
RUNS = str(Path(os.environ.get("BRC_HOME", "")) / "runs")


@dataclass(frozen=True)
class ActorsConfig:
    """Processes that step the environments. The tasks of each benchmark have actors of their own."""

    count: int = setting(0, 0, 4096)
    """Actor processes of each benchmark; 0 divides all cores but one among the benchmarks, at most one a task."""
    copies: int = setting(4, 1, 4096, resume="fixed in lock step")
    """Copies of a task in each actor that serves it. The actor steps them together."""
    threads: int = setting(1, 1, 1024)
    """Threads of each task's environment pool."""
    backend: Literal["envpool", "dm_control", "ale-py"] = setting("envpool", resume="fixed in lock step")
    """Library for tasks that several libraries can run: the tasks of dm_control and of Atari."""
    action_repeat: int = setting(1, 1, 100, resume="fixed")
    """Steps of the environment for which an action is held, in training and in evaluation. A step of a run is then one
    action, its reward the sum. Atari has --atari.frame-skip instead."""
    privileged_keys: tuple[str, ...] = setting((), resume="fixed")
    """Parts of the observations of gymnasium/ and vector/ tasks, keys of their Dict, that only the critic sees."""
    balance: Literal["fixed", "auto"] = "fixed"
    """auto moves actors to the slowest benchmark from those that wait for it, as long as the learner waits too."""
    cpus: float = setting(1.0, 0.0, 1024.0)
    """CPUs that Ray reserves for an actor. An actor that Ray cannot place waits until it can."""
    gpus: float = setting(0.0, 0.0, 8.0)
    """Share of a GPU that Ray reserves for an actor, for simulators that run on one. The learner's ranks on GPUs leave
    it theirs."""
    deadline: float = setting(120.0, 1.0, 86400.0)
    """Seconds without a step after which an actor or an evaluator is replaced. Waits for replay do not count."""
    memory: float = setting(8.0, 0.1, 100000.0)
    """Gigabytes of memory above which an actor is replaced."""
    runtime: dict[str, str] = field(default_factory=dict)
    """Packages of a benchmark's actors and evaluator: names of benchmarks and YAML files with a Ray runtime
    environment, such as humanoid-bench actors/humanoid_bench.yaml. A benchmark not named has the run's own."""
    of: dict[str, float] = field(default_factory=dict)
    """Values for the actors of one benchmark, instead of the values above: names and numbers, such as dmc.count 32
    metaworld.copies 2. The options are count, copies, threads, cpus, gpus, deadline, memory and
    action-repeat."""


@dataclass(frozen=True)
class ExplorationConfig:
    """Exploration in tasks with discrete actions. Other tasks are explored by the policy's own noise."""

    epsilon: float = setting(0.01, 0.0, 1.0)
    """Final share of random actions."""
    steps: int = setting(10_000, 0, 10**12)
    """Environment steps of each task, after warm-up, over which the share of random actions falls from 1."""


@dataclass(frozen=True)
class AtariConfig:
    """How Atari games are played, in training and in evaluation."""

    frame_skip: int = setting(4, 1, 60, resume="fixed")
    """Frames for which an action is held."""
    stack: int = setting(4, 1, 16, resume="fixed")
    """Frames in an observation."""
    size: int = setting(84, 16, 210, resume="fixed")
    """Height and width that frames are scaled to. A learner on a CPU is four times faster with 42."""
    sticky: float = setting(0.25, 0.0, 0.99, resume="fixed in lock step")
    """Probability, at every frame, that the previous action is held instead. It is 0 in the Atari 100k benchmark."""
    one_life: bool = setting(False, resume="fixed in lock step")
    """Whether a training episode ends when a life is lost, and the game begins anew. Evaluation plays all lives."""
    full_actions: bool = setting(True, resume="fixed")
    """Whether all games have the joystick's 18 actions. If not, a game has only the actions that it uses."""
    noop_max: int = setting(30, 1, 1000, resume="fixed in lock step")
    """Largest number of frames without an action at the beginning of an episode."""


@dataclass(frozen=True)
class MetaworldConfig:
    """How MetaWorld's tasks are played, in training and in evaluation."""

    goals: Literal["resampled", "frozen"] = setting("resampled", resume="fixed")
    """Whether every episode draws places of objects and a goal, or all episodes of a task have those that the run's
    seed drew first. Results on frozen goals tell about them alone."""


@dataclass(frozen=True)
class ReplayConfig:
    """Where transitions are kept, and how far acting may be ahead of learning."""

    capacity: int = setting(1_000_000, 1, 10**12, resume="fixed in lock step")
    """Transitions that all shards together keep of each task."""
    observation_dtype: Literal["float32", "float16"] = setting("float32", resume="fixed in lock step")
    """Type that observations are kept and sent in; float16 halves the memory and keeps three digits. Observations
    beyond its range are clipped to 65504. The metrics count them, and the console reports the first of each task."""
    task_weights: dict[str, float] = field(default_factory=dict)
    """How often tasks are sampled, relative to others: names and numbers, such as dmc/dog-run 2.0; 1 if not named."""
    directory: str = ""
    """Folder for replay's files while a run is live; empty is shared memory, or the run's folder if shared memory has
    too little room. The files outlive the processes of a run, but not a restart of the operating system."""
    snapshots: str = setting("", resume="fixed")
    """Folder or URL, such as s3://bucket/folder, for replay's part of checkpoints; empty is the run's folder."""
    shards: int = setting(1, 1, 1024, resume="fixed in lock step")
    """Number of replay processes."""
    segment_length: int = setting(32, 1, 65536, resume="fixed in lock step")
    """Transitions of each copy that an actor collects before it pushes them."""
    warmup: int = setting(5000, 1, 10**12, resume="fixed")
    """Environment steps of each task, with random actions, before the first update; after offline updates with their
    policy."""
    demonstrations: tuple[str, ...] = setting((), resume="fixed")
    """Demonstrations that are sampled besides: npz files or Minari datasets (docs/robots.md), with several tasks each
    as TASK=PATH. Every shard reads them when it begins, so each of their nodes needs the files."""
    demonstration_share: float = setting(0.5, 0.0, 1.0)
    """Share of demonstrations in the rows of each task that has some; 0.5 as in RLPD."""
    max_ahead: int = setting(0, 0, 10**12)
    """Environment steps by which acting may be ahead of learning; 0 means two pushes of an actor."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Evaluation with the deterministic policy."""

    interval: int = setting(25_000, 0, 10**12)
    """Environment steps of each task between evaluations; 0 evaluates only before and after training."""
    episodes: int = setting(10, 1, 1000)
    """Episodes of each task in an evaluation. At most 64 are played at a time, fewer if memory is short."""
    films: int = setting(0, 0, 1000)
    """Tasks of which an episode is filmed at the end of a run on this machine, the first ones: seconds each. It is
    `brc film` otherwise."""


@dataclass(frozen=True)
class MetricsConfig:
    """How Prometheus gets the metrics of a live run. They are also in the run's folder."""

    serve: bool = True
    """Serve metrics to Prometheus while the run is live."""
    port: int = setting(0, 0, 65535)
    """Port to serve metrics at; 0 takes any free port, and Prometheus is told which."""
    address: str = ""
    """Address of this machine to serve metrics at; empty is 127.0.0.1, on a cluster the head's own address."""
    targets: str = ""
    """Folder where Prometheus finds its targets, a file for each run; empty is .prometheus in the folder of runs."""


@dataclass(frozen=True)
class Config:
    """A run: one agent on a list of tasks."""

    tasks: tuple[str, ...] = ()
    """Names of tasks and suites, such as dmc/dog-run or dmc-dogs."""
    steps: int = setting(1_000_000, 1, 10**12)
    """Environment steps of each task after which the run ends."""
    seed: int = setting(0, 0, 2**31 - 1, resume="fixed in lock step")
    """Seed of networks, environments, exploration and sampling."""
    name: str = ""
    """Name of the run's folder; empty makes a name from the preset and the time."""
    origin: str = ""
    """Folder of the run whose agent this run begins with. `brc add-task` sets it."""
    origin_embedding: str = "mean"
    """First embedding of a task that the origin did not have: mean of all tasks of the origin, random, or the name of a
    similar task of the origin, whose embedding it copies."""
    resume: bool = False
    """Continue the run of this name from its newest checkpoint."""
    execution: Literal["distributed", "serial"] = "distributed"
    """distributed runs the parts as Ray processes. serial runs them in lock step in one process, and two runs with the
    same seed are bit-identical."""
    runs_folder: str = RUNS
    """Folder that holds a folder for each run; on a cluster's head it is in BRC_HOME, ~/.brc."""
    checkpoint_interval: int = setting(100_000, 0, 10**12)
    """Environment steps of each task between checkpoints; 0 writes one only when the run ends or is stopped."""
    keep_checkpoints: int = setting(2, 1, 1000)
    """Number of newest checkpoints to keep. Older checkpoints are removed."""
    report_interval: float = setting(5.0, 0.1, 60)
    """Seconds between two rows of metrics, and between two refreshes of the console."""
    wandb: str = ""
    """Project of Weights & Biases, such as entity/project, that also gets the run's metrics; empty is none."""
    ray_folder: str = ""
    """Folder of a local Ray's sessions and logs, with a path of at most 43 bytes. Empty is Ray's own choice, `ray` in
    RAY_TMPDIR, TMPDIR or /tmp; if that path is longer or another user's, it is a short folder in /tmp."""
    learner: LearnerConfig = field(default_factory=LearnerConfig)
    actors: ActorsConfig = field(default_factory=ActorsConfig)
    replay: ReplayConfig = field(default_factory=ReplayConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    exploration: ExplorationConfig = field(default_factory=ExplorationConfig)
    atari: AtariConfig = field(default_factory=AtariConfig)
    metaworld: MetaworldConfig = field(default_factory=MetaworldConfig)
    metrics: MetricsConfig = field(default_factory=MetricsConfig)
