"""Agents of other papers as presets, for any tasks, with the settings that their authors published.

What is not known of them, and what they lack here, is in docs/comparisons.md.
"""

from __future__ import annotations

import math
from dataclasses import replace

from cluster.config.schema import Config, ReplayConfig
from learner.config import LearnerConfig

MILLION = ReplayConfig(capacity=1_000_000, warmup=5_000)
# What SAC, SimBa, SimbaV2, XQC and FlashSAC have in common: one task, two updates for a decision, rows of 256.
# Their rule gives a discount of 0.995 for episodes of 1000 steps, and 0.99 for those of 500.
SINGLE = LearnerConfig(
    batch_size=256,
    discount=0.995,
    weight_decay=0.0,
    temperature_beta=0.9,
    initial_temperature=0.01,
    order="policy-first",
)


def sac() -> Config:
    """SAC: plain networks of width 256, the minimum of two critics, squared error. One task, or one-hot for several."""
    learner = replace(
        SINGLE,
        network="mlp",
        width=256,
        policy_depth=2,
        conditioning="one-hot",
        loss="mse",
        target="min",
        reward_normalizer="none",
        initial_temperature=1.0,
        target_entropy_per_action=-1.0,
    )
    return Config(learner=learner, replay=MILLION)


def simba() -> Config:
    """SimBa: residual networks on normalised observations; critic of width 512, one head, squared error."""
    learner = replace(
        SINGLE,
        network="simba",
        width=512,
        heads=1,
        policy_width=128,
        loss="mse",
        reward_normalizer="none",
        normalize_observations=True,
        learning_rate=1e-4,
        weight_decay=1e-2,
    )
    return Config(learner=learner, replay=MILLION)


def simbav2() -> Config:
    """SimbaV2: hyperspherical networks; critic of width 512, one head, categorical returns in [-5, 5]."""
    learner = replace(
        SINGLE,
        network="simbav2",
        width=512,
        heads=1,
        policy_width=128,
        value_limit=5.0,
        reward_normalizer="return-scale",
        normalize_observations=True,
        learning_rate=1e-4,
        schedule="linear",
        final_rate=0.5,
    )
    return Config(learner=learner, replay=MILLION)


def xqc() -> Config:
    """XQC: batch and weight normalisation, two critics of width 512, the minimum of categorical returns in [-5, 5]."""
    learner = replace(
        SINGLE,
        network="xqc",
        width=512,
        depth=4,
        policy_width=256,
        policy_depth=4,
        target="min",
        value_limit=5.0,
        reward_normalizer="return-deviation",
        order="critic-first",
        policy_interval=3,
        schedule="linear",
        final_rate=0.1,
    )
    return Config(learner=learner, replay=MILLION)


def flashsac() -> Config:
    """FlashSAC on CPU simulators: batch normalisation in residual blocks, width 256, rows of 512, one update a step."""
    learner = replace(
        SINGLE,
        network="flash",
        width=256,
        policy_width=128,
        policy_depth=2,
        target="min",
        heads_loss="mean",
        value_limit=5.0,
        reward_normalizer="return-scale",
        batch_size=512,
        updates_per_step=1.0,
        discount=0.99,
        polyak=0.01,
        policy_interval=2,
        schedule="cosine",
        final_rate=0.5,
        target_entropy_per_action=0.5 * math.log(2.0 * math.pi * math.e * 0.15**2),
    )
    return Config(learner=learner, replay=replace(MILLION, warmup=10_000))


def mtsac() -> Config:
    """Multi-task SAC of MetaWorld: plain networks of width 400 with a one-hot task, ten tasks of 128 rows an update."""
    learner = replace(
        sac().learner,
        width=400,
        depth=3,
        policy_width=400,
        policy_depth=3,
        batch_size=1280,
        updates_per_step=1.0,
        discount=0.99,
        order="critic-first",
        heads_loss="mean",
        adam_epsilon=1e-5,
        gradient_clip=1.0,
    )
    return Config(learner=learner, steps=2_000_000, replay=ReplayConfig(capacity=100_000, warmup=4_000))


def mtmhsac() -> Config:
    """Multi-task, multi-head SAC of MetaWorld: as mtsac, with output layers of each task's own."""
    base = mtsac()
    return replace(base, learner=replace(base.learner, conditioning="heads"))


def pcgrad() -> Config:
    """PCGrad: as mtmhsac, with gradient surgery of critic and policy."""
    base = mtmhsac()
    return replace(base, learner=replace(base.learner, surgery="pcgrad"))


def brc_mse() -> Config:
    """BRC with the mean return by squared error in place of categorical returns (the paper's figure 3)."""
    return Config(learner=LearnerConfig(loss="mse"))


def brc_xqc() -> Config:
    """BRC's embeddings, task-balanced batches of 1024 and reward scales, on XQC's networks of 2 M parameters."""
    learner = replace(xqc().learner, batch_size=1024, discount=0.99, reward_normalizer="brc")
    return Config(learner=learner, replay=replace(MILLION, warmup=Config().replay.warmup))


def brc_flash() -> Config:
    """BRC's embeddings, task-balanced batches of 1024 and reward scales, on FlashSAC's networks of 2 M parameters."""
    learner = replace(flashsac().learner, batch_size=1024, updates_per_step=2.0, reward_normalizer="brc")
    return Config(learner=learner, replay=replace(MILLION, warmup=Config().replay.warmup))


BASELINES = (sac, simba, simbav2, xqc, flashsac, mtsac, mtmhsac, pcgrad, brc_mse, brc_xqc, brc_flash)
