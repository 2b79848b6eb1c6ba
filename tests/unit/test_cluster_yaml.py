"""The files for `ray up`: these tests find settings that Ray or AWS would refuse, without a cluster and without AWS.

The provider `local` is validated completely. The requests to AWS are tested in test_aws.py. For Google Cloud only Ray's
schema and our own checks are applied: only Google knows whether a machine type, an image or a field of node_config
exists.
"""

from __future__ import annotations

import copy
import functools
import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.support.launcher import LAUNCHER, ROOT, Config, load, node_types

KUBERAY = ROOT / "cluster" / "deploy" / "kuberay.yaml"
ROLES = {"learner", "replay", "actors"}
SECRETS = {"~/.ray/auth_token", "~/.brc/redis_password"}  # `make secrets` makes them
SECRET = re.compile(r"password|secret|token", re.IGNORECASE)

Edit = Callable[[Any], object]


def prepared(config: Config) -> Config:
    """Return the configuration as `ray up` completes and validates it, before it calls the provider."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    filled: Config = prepare_config(copy.deepcopy(config))
    validate_config(filled)
    return filled


def commands(config: Config) -> list[str]:
    return [command for key, value in config.items() if key.endswith("_commands") for command in value]


# ---------------------------------------------------------------------------------------------------- Ray's launcher


@pytest.mark.parametrize("provider", LAUNCHER)
def test_ray_takes_it(provider: str) -> None:
    filled = prepared(load(provider))
    assert filled["provider"]["type"] == provider
    assert sum(kind.get("max_workers", 0) for kind in node_types(filled).values()) == filled["max_workers"]


CLOUDS = ("aws", "gcp")
EVERY = tuple(LAUNCHER)
# (the fault, the providers whose file can have it, an edit that makes it, Ray's message)
WRONG: list[tuple[str, tuple[str, ...], Edit, str]] = [
    ("unknown key", EVERY, lambda c: c.update(max_worker=3), "'max_worker' was unexpected"),
    ("unknown key of auth", EVERY, lambda c: c["auth"].update(ssh_port=2222), "'ssh_port' was unexpected"),
    ("a name that is none", EVERY, lambda c: c.update(cluster_name=None), "None is not of type 'string'"),
    ("unknown provider", EVERY, lambda c: c["provider"].update(type="asw"), "Unsupported node provider: asw"),
    ("commands in no list", EVERY, lambda c: c.update(head_start_ray_commands="true"), "not of type 'array'"),
    ("a command that is no text", EVERY, lambda c: c["setup_commands"].append({"a": "b"}), "not of type 'string'"),
    ("a number that is none", CLOUDS, lambda c: c.update(idle_timeout_minutes="10"), "'10' is not of type 'number'"),
    ("misspelt head_node_type", CLOUDS, lambda c: c.update(head_node_type="haed"), "must be one of"),
    ("a head that is no type", CLOUDS, lambda c: node_types(c).pop("head"), "must be one of"),
    ("too many min_workers", CLOUDS, lambda c: node_types(c)["replay"].update(min_workers=14), "smaller than the sum"),
    ("unknown key of a type", CLOUDS, lambda c: node_types(c)["replay"].update(max_worker=4), "was unexpected"),
    ("no resources", CLOUDS, lambda c: node_types(c)["replay"].pop("resources"), "'resources' is a required"),
    ("no node_config", CLOUDS, lambda c: node_types(c)["replay"].pop("node_config"), "'node_config' is a required"),
    ("half a CPU", CLOUDS, lambda c: node_types(c)["replay"]["resources"].update(CPU=0.5), "not of type 'integer'"),
    ("fewer than no CPUs", CLOUDS, lambda c: node_types(c)["replay"]["resources"].update(CPU=-1), "less than"),
    ("unknown key of a group", ("aws",), lambda c: c["provider"].update(security_group={"Name": "b"}), "unexpected"),
    ("no head_ip", ("local",), lambda c: c["provider"].pop("head_ip"), "supply a `head_ip`"),
    ("no worker_ips", ("local",), lambda c: c["provider"].pop("worker_ips"), "supply a `head_ip`"),
    ("types of hosts", ("local",), lambda c: c.update(available_node_types={"head": {}}), "is not supported"),
]
WRONG_IN = [(provider, edit, said) for _, providers, edit, said in WRONG for provider in providers]
WRONG_IDS = [f"{provider}: {wrong}" for wrong, providers, _, _ in WRONG for provider in providers]


@pytest.mark.parametrize(("provider", "edit", "said"), WRONG_IN, ids=WRONG_IDS)
def test_ray_refuses(provider: str, edit: Edit, said: str) -> None:
    from click import ClickException
    from jsonschema import ValidationError

    config = load(provider)
    edit(config)
    with pytest.raises((ValidationError, ValueError, NotImplementedError, ClickException), match=re.escape(said)):
        prepared(config)


# ----------------------------------------------------------------------------------------------------- our own checks


@pytest.mark.parametrize("provider", CLOUDS)
def test_every_role_has_nodes_and_actors_alone_are_spot(provider: str) -> None:
    config = load(provider)
    assigned = re.findall(r"BRC_ROLES=(\S*)", config["head_start_ray_commands"][0])
    assert [set(found.split(",")) for found in assigned] == [ROLES]
    offered: set[str] = set()
    for name, kind in node_types(config).items():
        resources = dict(kind["resources"])
        cpus, gpus = resources.pop("CPU"), resources.pop("GPU", 0)
        roles = {key.removeprefix("brc-") for key in resources}
        assert roles <= ROLES and set(resources.values()) <= {1000}, name
        assert (cpus == 0) == (not roles) == (name == config["head_node_type"]), "the head does no work of a run"
        assert (gpus > 0) == (roles == {"learner"}), name
        spot = "InstanceMarketOptions" in kind["node_config"] or "provisioningModel" in str(kind["node_config"])
        assert spot == (roles == {"actors"}), name
        offered |= roles
    assert offered == ROLES


@pytest.mark.parametrize("provider", CLOUDS)
def test_ray_starts_the_nodes_that_500_actors_need(provider: str) -> None:
    """Ask Ray's scheduler for actors of one CPU, replay and a learner: each role gets the nodes that offer it."""
    from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer, get_nodes_for

    config = prepared(load(provider))
    demand = [{"GPU": 1, "CPU": 2, "brc-learner": 1}]
    demand += [{"CPU": 2, "brc-replay": 1}] * 4
    demand += [{"CPU": 1, "brc-actors": 1}] * 500
    scorer = functools.partial(_default_utilization_scorer, node_availability_summary=None)
    nodes, left = get_nodes_for(node_types(config), {"head": 1}, "head", config["max_workers"], demand, scorer)
    assert left == []
    assert nodes == {"learner": 1, "replay": 1, "actors_intel": 4, "actors_amd": 4}
    nodes, left = get_nodes_for(node_types(config), {"head": 1}, "head", 13, [{"brc-actor": 1}], scorer)
    assert (nodes, len(left)) == ({}, 1), "a role that is misspelt gets no node"


@pytest.mark.parametrize("provider", LAUNCHER)
def test_files_that_are_brought_exist_and_are_enough(provider: str, tmp_path: Path) -> None:
    """The copied files include all that a node imports and all that `make setup` needs there, but nothing of .venv."""
    config = load(provider)
    mounts = dict(config["file_mounts"])
    assert {mounts.pop(secret) for secret in SECRETS} == SECRETS, "each to where node.sh reads it"
    for target, source in mounts.items():
        assert target == f"~/brc-at-scale/{source}" and (ROOT / source).exists()
        assert not source.startswith(".") and source not in {"runs", "build"}

    brought = tmp_path / "brc-at-scale"
    brought.mkdir()
    without = shutil.ignore_patterns(*config["rsync_exclude"])
    for source in mounts.values():
        if (ROOT / source).is_dir():
            shutil.copytree(ROOT / source, brought / source, ignore=without)
        else:
            shutil.copy2(ROOT / source, brought / source)
    assert sum(file.stat().st_size for file in brought.rglob("*")) < 10e6
    assert (brought / "cluster" / "deploy" / "node.sh").stat().st_mode & 0o100, "start commands call it as a program"

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert all((brought / file).exists() for file in project["project"]["license-files"])
    packages = [include.rstrip("*") for include in project["tool"]["setuptools"]["packages"]["find"]["include"]]
    assert all((brought / package).is_dir() for package in packages)
    modules = project["tool"]["setuptools"]["py-modules"]
    assert modules and all((brought / f"{module}.py").is_file() for module in modules)
    stamp = re.search(r"^\$\(INSTALLED\): (.*)$", (brought / "Makefile").read_text(), re.MULTILINE)
    assert stamp and all((brought / needed).exists() for needed in stamp[1].split())
    script = f"import cluster.cli.main, {', '.join(packages + modules)}; print(cluster.cli.__file__)"
    done = subprocess.run([sys.executable, "-c", script], cwd=brought, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.startswith(str(brought)), done.stderr


@pytest.mark.parametrize("provider", LAUNCHER)
def test_commands_start_node_sh_and_tell_no_secret(provider: str) -> None:
    config = load(provider)
    (head,), (worker,) = config["head_start_ray_commands"], config["worker_start_ray_commands"]
    assert head.endswith("~/brc-at-scale/cluster/deploy/node.sh head")
    assert "BRC_AUTOSCALING=~/ray_bootstrap_config.yaml" in head, "where Ray puts this file on the head"
    assert worker.endswith("~/brc-at-scale/cluster/deploy/node.sh worker $RAY_HEAD_IP")
    assert not SECRET.search(" ".join(commands(config)))
    assert all("ray start" not in command and "ray stop" not in command for command in commands(config))
    script = "\n".join(commands(config))
    done = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_no_file_holds_a_secret() -> None:
    """The value of a setting with the name of a secret is the file or the Secret that holds the secret."""
    value = re.compile(r"(?:password|auth_token|AWS_\w*KEY\w*)[\"']?[ ]*[:=][ ]*[\"']?([^\s\"'{$&]+)", re.IGNORECASE)
    for file in (*(ROOT / name for name in LAUNCHER.values()), KUBERAY):
        assert set(value.findall(file.read_text())) <= {"~/.ray/auth_token", "~/.brc/redis_password"}, file


@pytest.mark.parametrize("provider", LAUNCHER)
def test_the_path_is_the_last_line_of_bashrc_however_often_a_node_is_set_up(provider: str, tmp_path: Path) -> None:
    config = prepared(load(provider))
    for kind in ("head_setup_commands", "worker_setup_commands"):
        *before, last = config[kind]
        assert not any(".bashrc" in command for command in before)
        home = tmp_path / kind
        home.mkdir()
        bashrc = home / ".bashrc"
        environment = {"HOME": str(home), "PATH": "/usr/bin:/bin"}
        for _ in range(2):
            subprocess.run(["bash", "-c", last], env=environment, check=True, timeout=60)
            with bashrc.open("a") as file:
                file.write("export PATH=/opt/other/bin:$PATH\n")
        subprocess.run(["bash", "-c", last], env=environment, check=True, timeout=60)
        lines = bashrc.read_text().splitlines()
        assert [".venv/bin" in line for line in lines] == [False, False, True]
        ray = ["bash", "--login", "-c", "-i", "source ~/.bashrc; echo $PATH"]
        said = subprocess.run(ray, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
        assert said.startswith(f"{home}/brc-at-scale/.venv/bin:")


@pytest.mark.parametrize("provider", CLOUDS)
def test_the_five_things_to_edit_are_marked(provider: str) -> None:
    text = (ROOT / LAUNCHER[provider]).read_text()
    assert set(re.findall(r"EDIT (\d)", text)) == set("12345")
    named = [line for line in text.splitlines() if re.search(r"(InstanceType|machineType):", line)]
    assert named and all("# EDIT 2" in line for line in named)


def test_ray_hands_a_node_the_resources_of_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    """All node types share the start commands, so roles arrive in RAY_OVERRIDE_RESOURCES, which `ray start` reads."""
    from ray._private.resource_and_label_spec import ResourceAndLabelSpec
    from ray.autoscaler._private.updater import NodeUpdater

    for provider, given in (("aws", True), ("gcp", True), ("local", False)):
        resources = node_types(load("aws"))["actors_amd"]["resources"]
        nodes = mock.MagicMock(provider_config={})
        nodes.node_tags.return_value = {}
        nodes.is_terminated.return_value = False
        start = "node.sh worker"
        updater = NodeUpdater(
            "node", {"type": provider}, nodes, {}, "brc", {}, [], [], [start], "hash", "hash", False, resources
        )
        updater.do_update()
        (call,) = (call for call in nodes.get_command_runner().run.mock_calls if call.args == (start,))
        assert call.kwargs["environment_variables"] == ({"RAY_OVERRIDE_RESOURCES": resources} if given else {})
    monkeypatch.setenv("RAY_OVERRIDE_RESOURCES", json.dumps(resources))
    spec = ResourceAndLabelSpec(resources={})
    spec.resolve(is_head=False)
    assert resources.items() <= spec.to_resource_dict().items()
