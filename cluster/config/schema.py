"""The configuration of a run: frozen dataclasses whose fields, defaults and docstrings are its documentation."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from learner.config import LearnerConfig
from replay.setting import setting

# A job on a cluster runs in a folder that goes away with it.
RUNS = str(Path(os.environ.get("BRC_HOME", "")) / "runs")


@dataclass(frozen=True)
class ActorsConfig:
    """Who steps the environments. The tasks of each benchmark have actors of their own."""

    count: int = setting(0, 0, 4096)
    """Actor processes of a benchmark; 0 divides one for each core but one among benchmarks, at most one a task."""
    copies: int = setting(4, 1, 4096, resume="fixed in lock step")
    """Copies of each task in an actor that serves it, stepped together."""
    threads: int = setting(1, 1, 1024)
    """Threads of each task's environment pool."""
    backend: Literal["envpool", "dm_control", "ale-py"] = setting("envpool", resume="fixed in lock step")
    """Library that runs tasks that several have: those of dm_control, and Atari's."""
    balance: Literal["fixed", "auto"] = "fixed"
    """auto moves actors from benchmarks that wait to the one that all wait for, as long as the learner waits too."""
    cpus: float = setting(1.0, 0.0, 1024.0)
    """CPUs that Ray sets aside for an actor. Those that it cannot place wait until it can."""
    deadline: float = setting(120.0, 1.0, 86400.0)
    """Seconds without a step, other than to wait for replay, after which an actor is replaced, or an evaluator."""
    memory: float = setting(8.0, 0.1, 100000.0)
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

    epsilon: float = setting(0.01, 0.0, 1.0)
    """Share of actions that are random in the end."""
    steps: int = setting(10_000, 0, 10**12)
    """Environment steps of each task, after warm-up, in which that share falls from 1."""


@dataclass(frozen=True)
class AtariConfig:
    """How Atari games are played, in training and evaluation alike."""

    frame_skip: int = setting(4, 1, 60, resume="fixed")
    """Frames that an action is held for."""
    stack: int = setting(4, 1, 16, resume="fixed")
    """Frames in an observation."""
    size: int = setting(84, 16, 210, resume="fixed")
    """Height and width that frames are scaled to; a learner on a CPU gains a factor of four from 42."""
    sticky: float = setting(0.25, 0.0, 0.99, resume="fixed in lock step")
    """Chance of every frame that the action before is held instead; the Atari 100k benchmark has none."""
    one_life: bool = setting(False, resume="fixed in lock step")
    """Whether an episode of training ends with the first life lost, and the game begins anew; not in evaluation."""
    full_actions: bool = setting(True, resume="fixed")
    """Whether all games have the joystick's 18 actions, or each those that mean something in it."""
    noop_max: int = setting(30, 1, 1000, resume="fixed in lock step")
    """An episode begins with up to so many frames in which nothing is done."""


@dataclass(frozen=True)
class ReplayConfig:
    """Where transitions are kept and how sampling and inserting are held together."""

    capacity: int = setting(1_000_000, 1, 10**12, resume="fixed in lock step")
    """Transitions kept of each task, over all shards."""
    observation_dtype: Literal["float32", "float16"] = setting("float32", resume="fixed in lock step")
    """Type that observations are kept and sent in; float16 halves the memory and keeps three digits. Observations
    beyond its range are clipped to 65504, which is counted, and told once a task."""
    task_weights: dict[str, float] = field(default_factory=dict)
    """How often tasks are drawn, relative to others: names and numbers, such as dmc/dog-run 2.0; 1 if not named."""
    directory: str = ""
    """Folder for the files that replay is kept in while a run lives; empty is shared memory, or the run's folder if
    that has no room. The files outlive processes, not the system that these run on."""
    snapshots: str = setting("", resume="fixed")
    """Folder or URL, such as s3://bucket/folder, for replay's part of checkpoints; empty is the run's folder."""
    shards: int = setting(1, 1, 1024, resume="fixed in lock step")
    """Replay processes."""
    segment_length: int = setting(32, 1, 65536, resume="fixed in lock step")
    """Transitions that an actor collects of each copy before it pushes them."""
    warmup: int = setting(5000, 1, 10**12, resume="fixed")
    """Environment steps of each task, taken at random, before the first update."""
    max_ahead: int = setting(0, 0, 10**12)
    """Environment steps by which acting may be ahead of learning; 0 means two pushes of an actor."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Scoring with the deterministic policy."""

    interval: int = setting(25_000, 0, 10**12)
    """Environment steps of each task between evaluations; 0 evaluates only before and after."""
    episodes: int = setting(10, 1, 1000)
    """Episodes of each task in an evaluation; at most 64 of all tasks are played at a time, fewer by memory."""


@dataclass(frozen=True)
class MetricsConfig:
    """Who is told of a live run's metrics, besides its folder."""

    serve: bool = True
    """Answer Prometheus while the run lives."""
    port: int = setting(0, 0, 65535)
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
    steps: int = setting(1_000_000, 1, 10**12)
    """Environment steps of each task after which the run ends."""
    seed: int = setting(0, 0, 2**31 - 1, resume="fixed in lock step")
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
    checkpoint_interval: int = setting(100_000, 0, 10**12)
    """Environment steps of each task between checkpoints; 0 writes one only at the end or when stopped."""
    keep_checkpoints: int = setting(2, 1, 1000)
    """Checkpoints kept; older ones are removed."""
    report_interval: float = setting(5.0, 0.1, 60)
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
