"""Specs of small learners for tests."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from learner.config import LearnerConfig
from learner.networks.spec import NetworkSpec
from learner.spec import LearnerSpec

OF_CONFIG = {field.name for field in fields(LearnerConfig)}
SMALL = LearnerConfig(batch_size=32, batches_per_request=4, precision="float32", device="cpu", threads=1)


def learner_spec(networks: NetworkSpec, **changes: Any) -> LearnerSpec:
    """Return the spec of a float32 learner on one thread; `changes` are fields of LearnerConfig and of LearnerSpec."""
    options = {key: value for key, value in changes.items() if key in OF_CONFIG}
    rest = {"seed": 0} | {key: value for key, value in changes.items() if key not in OF_CONFIG}
    return LearnerSpec(networks=networks, config=replace(SMALL, **options), **rest)
