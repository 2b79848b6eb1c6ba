"""Named configurations. Each is a function of no arguments; its docstring is what `brc presets` shows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cluster.config.baselines import BASELINES
from cluster.config.schema import (
    ActorsConfig,
    AtariConfig,
    Config,
    EvaluationConfig,
    ExplorationConfig,
    ReplayConfig,
)
from learner.config import LearnerConfig

# For runs of minutes: a higher learning rate and a lower temperature than the paper's, which suit a million steps.
SMALL = LearnerConfig(
    width=128, policy_width=128, batch_size=128, learning_rate=1e-3, initial_temperature=0.01, threads=1
)


def quickstart() -> Config:
    """Four small dm_control tasks and a small critic: learns in minutes on two cores."""
    return Config(
        tasks=("quickstart",),
        steps=40_000,
        checkpoint_interval=20_000,
        # Steps are cheap here, updates are not: make few updates, with large batches, long returns and a fast target.
        learner=replace(SMALL, width=64, policy_width=64, batch_size=256, updates_per_step=0.5, n_step=3, polyak=0.02),
        actors=ActorsConfig(count=1, copies=2),
        replay=ReplayConfig(capacity=100_000, warmup=2_000),
        evaluation=EvaluationConfig(interval=10_000, episodes=10, films=4),
    )


def quickstart_mixed() -> Config:
    """Three MetaWorld and two dm_control tasks in one small agent. Sizes and episode lengths differ between tasks."""
    return Config(
        tasks=("quickstart-mixed",),
        steps=20_000,
        checkpoint_interval=6_000,
        learner=replace(SMALL, width=256),
        actors=ActorsConfig(count=1, copies=1),
        replay=ReplayConfig(capacity=100_000, warmup=1_500),
        evaluation=EvaluationConfig(interval=5_000, episodes=10, films=5),
    )


def quickstart_discrete() -> Config:
    """Cart-pole and acrobot, whose actions are discrete, in one small agent: learns in minutes on two cores."""
    return Config(
        tasks=("gymnasium/CartPole-v1", "gymnasium/Acrobot-v1"),
        steps=10_000,
        checkpoint_interval=6_000,
        learner=replace(SMALL, updates_per_step=1.0, learning_rate=3e-4, polyak=0.01, n_step=3),
        actors=ActorsConfig(count=1, copies=1),
        replay=ReplayConfig(capacity=100_000, warmup=500),
        evaluation=EvaluationConfig(interval=2_000, episodes=10),
        exploration=ExplorationConfig(steps=2_000),
    )


def single_task() -> Config:
    """One task, which --tasks names, at width 4096 with batches of 256, as the paper's single-task agents have."""
    return Config(learner=LearnerConfig(batch_size=256))


def dmc_dogs() -> Config:
    """The paper's four dog tasks at width 4096: half of its DMC-hard benchmark."""
    return Config(tasks=("dmc-dogs",))


def dmc_dogs_repeat_2() -> Config:
    """The four dog tasks with every action held for two steps and 500 decisions an episode, as the published agents of
    one task (XQC, SimbaV2, SimBa, SAC) have it; half a million steps are their million frames."""
    return Config(tasks=("dmc-dogs",), steps=500_000, actors=ActorsConfig(action_repeat=2))


def dmc_humanoids() -> Config:
    """The paper's three humanoid tasks at width 4096: the other half of DMC-hard."""
    return Config(tasks=("dmc-humanoids",))


def dmc_hard() -> Config:
    """Dogs and humanoids in one agent, at width 4096. The paper trains one agent on each."""
    return Config(tasks=("dmc-hard",))


def metaworld_50() -> Config:
    """The paper's fifty MetaWorld tasks at width 4096. Every reset draws a new goal."""
    return Config(tasks=("metaworld-50",), actors=ActorsConfig(copies=1))


def metaworld_dmc_80() -> Config:
    """TD-MPC2's 80 tasks in one agent at width 4096: MetaWorld's 50, and 30 with dm_control's bodies."""
    return replace(metaworld_50(), tasks=("metaworld-dmc-80",), replay=ReplayConfig(capacity=500_000))


def playground_locomotion() -> Config:
    """MuJoCo Playground's 19 tasks of legged robots in one agent, at width 4096."""
    return Config(tasks=("playground-locomotion",), replay=ReplayConfig(capacity=500_000))


def playground_manipulation() -> Config:
    """MuJoCo Playground's ten tasks of arms and hands in one agent, at width 4096."""
    return Config(tasks=("playground-manipulation",), replay=ReplayConfig(capacity=500_000))


def myo_10() -> Config:
    """The ten tasks of MyoSuite's hand that published agents of one task are compared on, at width 4096."""
    return Config(tasks=("myo-10",))


def dmc_all() -> Config:
    """All 51 tasks of the dm_control suite in one agent, at width 4096."""
    return Config(tasks=("dmc-all",), replay=ReplayConfig(capacity=200_000))


def hb_medium() -> Config:
    """The paper's nine tasks of HumanoidBench without hands, at width 4096. Needs make install-humanoid-bench."""
    return Config(tasks=("hb-medium",), actors=ActorsConfig(copies=1))


def hb_hard() -> Config:
    """The paper's 28 tasks of HumanoidBench with hands, at width 4096. Needs make install-humanoid-bench."""
    return Config(
        tasks=("hb-hard",),
        steps=2_000_000,
        actors=ActorsConfig(copies=1),
    )


def shadowhand_85() -> Config:
    """A Shadow hand that turns the paper's 85 objects, at width 4096. Needs make install-shadow-hand."""
    return Config(tasks=("shadowhand-85",), actors=ActorsConfig(copies=1))


def shadowhand_29() -> Config:
    """A Shadow hand that turns the paper's 29 transfer objects: for brc add-task, or from scratch to compare it."""
    return replace(shadowhand_85(), tasks=("shadowhand-29",))


def atari_26() -> Config:
    """The 26 games of Atari 100k in one agent, 100,000 steps a game, without sticky actions."""
    return Config(
        tasks=("atari-26",),
        steps=100_000,
        learner=LearnerConfig(width=1024, encoder_width=4, n_step=3, publish_interval=200),
        actors=ActorsConfig(copies=1),
        replay=ReplayConfig(capacity=100_000, warmup=2_000),
        exploration=ExplorationConfig(steps=5_000),
        atari=AtariConfig(sticky=0.0),
    )


def atari_57() -> Config:
    """All 57 games in one agent, with sticky actions, a million steps a game."""
    return replace(
        atari_26(),
        tasks=("atari-57",),
        steps=1_000_000,
        replay=ReplayConfig(capacity=100_000, warmup=5_000),
        exploration=ExplorationConfig(steps=50_000),
        atari=AtariConfig(),
    )


FUNCTIONS = (
    quickstart,
    quickstart_mixed,
    quickstart_discrete,
    single_task,
    dmc_dogs,
    dmc_dogs_repeat_2,
    dmc_humanoids,
    dmc_hard,
    dmc_all,
    playground_locomotion,
    playground_manipulation,
    myo_10,
    metaworld_50,
    metaworld_dmc_80,
    hb_medium,
    hb_hard,
    shadowhand_85,
    shadowhand_29,
    atari_26,
    atari_57,
    *BASELINES,
)
PRESETS: dict[str, Callable[[], Config]] = {function.__name__.replace("_", "-"): function for function in FUNCTIONS}
