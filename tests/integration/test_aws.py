"""Tests of cluster.yaml against moto: the requests of Ray's code for AWS, from the network to the last node's end."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from tests.support.launcher import LAUNCHER, ROOT, Config, load, node_types


def profiles() -> str:
    """Return the commands at the end of cluster.yaml that make the two instance profiles."""
    comment = (ROOT / LAUNCHER["aws"]).read_text().split("BUCKET=your-bucket\n", 1)[1]
    return "BUCKET=brc\n" + "\n".join(line.removeprefix("#") for line in comment.splitlines())


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Yield an EC2 client of a simulated AWS. The commands of cluster.yaml have made its instance profiles."""
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
    monkeypatch.setenv("HOME", str(tmp_path))  # the key pair goes to ~/.ssh
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    region = load("aws")["provider"]["region"]

    # The commands run with a program in place of `aws` that records its arguments.
    stub = tmp_path / "bin" / "aws"
    stub.parent.mkdir()
    stub.write_text(
        f"#!{sys.executable}\nimport json, sys\n"
        f"if 'get-role' in sys.argv: print('arn:aws:iam::123456789012:role/brc-worker')\n"
        f"else: open({str(tmp_path / 'asked')!r}, 'a').write(json.dumps(sys.argv[1:]) + '\\n')\n"
    )
    stub.chmod(0o755)
    environment = {"PATH": f"{stub.parent}:/usr/bin:/bin"}
    subprocess.run(["bash", "-e"], input=profiles(), text=True, env=environment, check=True, timeout=60)
    with moto.mock_aws(config={"iam": {"load_aws_managed_policies": True}}):
        iam = boto3.client("iam", region_name=region)
        for line in (tmp_path / "asked").read_text().splitlines():
            service, command, *options = json.loads(line)
            assert service == "iam"
            given = {
                "".join(word.capitalize() for word in name.removeprefix("--").split("-")): value
                for name, value in zip(options[::2], options[1::2], strict=True)
            }
            getattr(iam, command.replace("-", "_"))(**given)
        yield boto3.client("ec2", region_name=region)


@pytest.mark.long
def test_on_aws_ray_makes_the_nodes_and_ends_them(aws: Any, tmp_path: Path) -> None:
    """Ray's code for AWS makes and ends all nodes, as `ray up`, the autoscaler and `ray down` do.

    moto takes any image and any field of boto3's. Only AWS can tell whether the images exist in a region.
    """
    from ray.autoscaler._private import commands as launcher
    from ray.autoscaler._private.event_summarizer import EventSummarizer
    from ray.autoscaler._private.node_launcher import BaseNodeLauncher
    from ray.autoscaler._private.node_provider_availability_tracker import NodeProviderAvailabilityTracker
    from ray.autoscaler._private.providers import _clear_provider_cache, _get_node_provider
    from ray.autoscaler._private.util import ConcurrentCounter, hash_launch_conf
    from ray.autoscaler.tags import TAG_RAY_NODE_STATUS

    boto3 = pytest.importorskip("boto3")
    iam = boto3.client("iam")
    may = {
        role: json.dumps(iam.get_role_policy(RoleName=role, PolicyName="brc")["PolicyDocument"])
        for role in ("brc-head", "brc-worker")
    }
    assert all("arn:aws:s3:::brc/*" in document for document in may.values())
    assert ["iam:PassRole" in document for document in may.values()] == [True, False], "workers start no instances"

    written = load("aws")
    config = launcher._bootstrap_config(copy.deepcopy(written), no_config_cache=True)
    launcher.try_logging_config(config)  # `ray up` prints this, and fails on missing fields
    kinds = node_types(config)

    # the cluster has its own key pair, which only the owner of the file can read
    (pair,) = aws.describe_key_pairs()["KeyPairs"]
    key = tmp_path / ".ssh" / f"{pair['KeyName']}.pem"
    assert Path(config["auth"]["ssh_private_key"]) == key and key.stat().st_mode & 0o777 == 0o600
    assert {kind["node_config"]["KeyName"] for kind in kinds.values()} == {pair["KeyName"]}

    # one security group: ssh from outside, everything from the group itself, nothing else
    (group,) = {tuple(kind["node_config"]["SecurityGroupIds"]) for kind in kinds.values()}
    (described,) = aws.describe_security_groups(GroupIds=list(group))["SecurityGroups"]
    outside = [rule for rule in described["IpPermissions"] if rule["IpRanges"]]
    inside = [rule for rule in described["IpPermissions"] if not rule["IpRanges"]]
    assert [(rule["FromPort"], rule["ToPort"], rule["IpProtocol"]) for rule in outside] == [(22, 22, "tcp")]
    assert [[pair["GroupId"] for pair in rule["UserIdGroupPairs"]] for rule in inside] == [list(group)]

    # the resources in cluster.yaml are those of the instance types
    instances = {kind["node_config"]["InstanceType"] for kind in kinds.values()}
    types = {t["InstanceType"]: t for t in aws.describe_instance_types(InstanceTypes=list(instances))["InstanceTypes"]}
    for name, kind in kinds.items():
        has = types[kind["node_config"]["InstanceType"]]
        gpus = sum(gpu["Count"] for gpu in has.get("GpuInfo", {}).get("Gpus", []))
        assert kind["resources"].get("GPU", 0) == gpus, name
        if name != "head":
            assert kind["resources"]["CPU"] == has["VCpuInfo"]["DefaultVCpus"], name
            assert kind["resources"]["memory"] > 2**30, "Ray looks it up"
        assert written["available_node_types"][name]["resources"].items() <= kind["resources"].items()

    _clear_provider_cache()
    provider = _get_node_provider(config["provider"], config["cluster_name"])
    asked: list[Config] = []
    for client in (provider.ec2.meta.client, provider.ec2_fail_fast.meta.client):
        client.meta.events.register("provide-client-params.ec2.RunInstances", lambda params, **_: asked.append(params))
    pending = ConcurrentCounter()
    node_launcher = BaseNodeLauncher(
        provider, pending, EventSummarizer(), NodeProviderAvailabilityTracker(), mock.MagicMock()
    )
    wanted = {name: kind["max_workers"] or 1 for name, kind in kinds.items()}
    for name, count in wanted.items():
        if name == config["head_node_type"]:
            tags = {"ray-node-type": "head", "ray-user-node-type": name, "ray-node-name": "ray-brc-head"}
            tags |= {"ray-node-status": "uninitialized"}
            tags |= {"ray-launch-config": hash_launch_conf(kinds[name]["node_config"], config["auth"])}
            provider.create_node(kinds[name]["node_config"], tags, count)
        else:
            # Like the autoscaler, ask again for the missing nodes: moto gives one at a time.
            for missing in range(count, 0, -1):
                pending.inc(name, missing)
                node_launcher.launch_node(config, missing, name)

    reservations = aws.describe_instances()["Reservations"]
    made = [instance for reservation in reservations for instance in reservation["Instances"]]
    assert len(made) == sum(wanted.values()) == 14
    for name, count in wanted.items():
        node_config = written["available_node_types"][name]["node_config"]
        mine = [i for i in made if {"Key": "ray-user-node-type", "Value": name} in i["Tags"]]
        assert len(mine) == count
        for instance in mine:
            found = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
            assert found["ray-cluster-name"] == "brc"
            assert found["ray-node-type"] == ("head" if name == "head" else "worker")
            assert found["Name"] == f"ray-brc-{found['ray-node-type']}"
            assert instance["InstanceType"] == node_config["InstanceType"]
            assert instance["Placement"]["AvailabilityZone"] == written["provider"]["availability_zone"]
            assert instance["IamInstanceProfile"]["Arn"].endswith("/" + node_config["IamInstanceProfile"]["Name"])
            assert instance["State"]["Name"] in {"pending", "running"}
        request, *_ = (params for params in asked if name in str(params["TagSpecifications"]))
        assert (request["MinCount"], request["MaxCount"]) == (1, count)
        assert request["ImageId"] == node_config["ImageId"]
        assert request["BlockDeviceMappings"] == node_config["BlockDeviceMappings"]
        assert request.get("InstanceMarketOptions") == ({"MarketType": "spot"} if "actors" in name else None)

    # an idle node is terminated, and all nodes when the cluster ends; a node that is only stopped keeps its disk
    node = provider.non_terminated_nodes({"ray-user-node-type": "actors_intel"})[0]
    provider.set_node_tags(node, {TAG_RAY_NODE_STATUS: "up-to-date"})
    assert provider.node_tags(node)[TAG_RAY_NODE_STATUS] == "up-to-date"
    provider.terminate_node(node)
    assert len(provider.non_terminated_nodes({"ray-user-node-type": "actors_intel"})) == 3
    provider.terminate_nodes(provider.non_terminated_nodes({}))
    assert provider.non_terminated_nodes({}) == []
    reservations = aws.describe_instances()["Reservations"]
    states = [instance["State"]["Name"] for reservation in reservations for instance in reservation["Instances"]]
    assert set(states) <= {"shutting-down", "terminated"} and len(states) == 14
    _clear_provider_cache()
