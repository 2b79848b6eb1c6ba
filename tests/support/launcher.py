"""The files for `ray up`, as they are written: a description of a cluster for each provider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = {"aws": "cluster.yaml", "gcp": "cluster/deploy/gcp.yaml", "local": "cluster/deploy/on-prem.yaml"}

Config = dict[str, Any]


def load(provider: str) -> Config:
    config: Config = yaml.safe_load((ROOT / LAUNCHER[provider]).read_text())
    return config


def node_types(config: Config) -> dict[str, Config]:
    found: dict[str, Config] = config["available_node_types"]
    return found
