"""cluster/deploy/kuberay.yaml: these tests find settings that Kubernetes or KubeRay would refuse, without a cluster.

Pods and the resources for Redis are checked against Kubernetes' own schemas. KubeRay's resources are checked against
the fields that its operator knows.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
KUBERAY = ROOT / "cluster" / "deploy" / "kuberay.yaml"
ROLES = {"learner", "replay", "actors"}
SECRET = re.compile(r"password|secret|token", re.IGNORECASE)

Config = dict[str, Any]
Edit = Callable[[Any], object]


# The fields that KubeRay 1.6 knows, (required, optional). The API server drops other fields silently.
RAY_FIELDS: dict[str, tuple[set[str], set[str]]] = {
    "cluster": (
        {"headGroupSpec"},
        {"workerGroupSpecs", "rayVersion", "authOptions", "gcsFaultToleranceOptions", "enableInTreeAutoscaling"}
        | {"autoscalerOptions", "headServiceAnnotations", "managedBy", "suspend", "upgradeStrategy"},
    ),
    "head": (
        {"rayStartParams", "template"},
        {"headService", "enableIngress", "resources", "labels", "serviceType"},
    ),
    "worker": (
        {"groupName", "minReplicas", "maxReplicas", "rayStartParams", "template"},
        {"replicas", "idleTimeoutSeconds", "numOfHosts", "resources", "labels", "scaleStrategy", "suspend"},
    ),
    "authOptions": ({"mode"}, {"secretName", "enableK8sTokenAuth"}),
    "gcsFaultToleranceOptions": ({"redisAddress"}, {"redisUsername", "redisPassword", "externalStorageNamespace"}),
    "autoscalerOptions": (
        set(),
        {"resources", "image", "imagePullPolicy", "securityContext", "idleTimeoutSeconds", "upscalingMode", "version"}
        | {"env", "envFrom", "volumeMounts"},
    ),
    "job": (
        {"entrypoint"},
        {"activeDeadlineSeconds", "backoffLimit", "clusterSelector", "deletionStrategy", "entrypointNumCpus", "jobId"}
        | {"entrypointNumGpus", "entrypointResources", "managedBy", "metadata", "preRunningDeadlineSeconds"}
        | {"rayClusterSpec", "runtimeEnvYAML", "shutdownAfterJobFinishes", "submissionMode", "submitterConfig"}
        | {"submitterPodTemplate", "suspend", "ttlSecondsAfterFinished"},
    ),
}


def wrong_fields(kind: str, value: Config) -> list[str]:
    required, optional = RAY_FIELDS[kind]
    found = [f"{kind} has no {name}" for name in sorted(required - value.keys())]
    return found + [f"{kind} has an unknown {name}" for name in sorted(value.keys() - required - optional)]


def wrong_group(kind: str, group: Config) -> list[str]:
    validate = pytest.importorskip("kubernetes_validate")
    found = wrong_fields(kind, group)
    parameters = group.get("rayStartParams", {})
    found += [f"{kind}: {key} is no text" for key, value in parameters.items() if not isinstance(value, str)]
    if kind == "worker":
        try:
            resources = json.loads(json.loads(parameters["resources"]))
            found += [f"{key} is no role" for key in resources if key.removeprefix("brc-") not in ROLES]
        except (KeyError, TypeError, ValueError) as error:
            found.append(f"worker: resources are no JSON in JSON: {error}")
        if group.get("minReplicas", 0) > group.get("maxReplicas", 0):
            found.append("worker: more minReplicas than maxReplicas")
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": kind}, "spec": group.get("template", {}).get("spec")}
    try:
        validate.validate(pod, "1.33", strict=True)
    except validate.ValidationError as error:
        found.append(f"{kind}: {error.message}")
    return found


def wrong_document(document: Config) -> list[str]:
    """Return the faults of a document: fields that the API server would refuse or drop, and a missing token or role."""
    spec = document["spec"]
    if document["kind"] == "RayJob":
        found = wrong_fields("job", spec)
        if not spec.get("clusterSelector", {}).get("ray.io/cluster"):
            found.append("job selects no cluster")
        return found
    if document["kind"] == "RayCluster":
        found = wrong_fields("cluster", spec)
        for name in ("authOptions", "gcsFaultToleranceOptions", "autoscalerOptions"):
            found += wrong_fields(name, spec.get(name, {}))
        if spec.get("authOptions") != {"mode": "token"} or "rayVersion" not in spec:
            found.append("cluster takes requests without a token")
        found += wrong_group("head", spec.get("headGroupSpec", {}))
        for group in spec.get("workerGroupSpecs", []):
            found += wrong_group("worker", group)
        return found
    validate = pytest.importorskip("kubernetes_validate")
    try:
        validate.validate(document, "1.33", strict=True)
    except validate.ValidationError as error:
        return [error.message]
    return []


def documents() -> dict[str, Config]:
    return {f"{d['kind']} {d['metadata']['name']}": d for d in yaml.safe_load_all(KUBERAY.read_text())}


def test_kubernetes_takes_it() -> None:
    found = documents()
    assert {name.split()[0] for name in found} >= {"RayCluster", "RayJob", "StatefulSet", "Service"}
    assert {name: wrong for name, document in found.items() if (wrong := wrong_document(document))} == {}


CLUSTER, JOB, REDIS = "RayCluster brc", "RayJob quickstart-0", "StatefulSet brc-redis"


def worker(spec: Config) -> Config:
    group: Config = spec["workerGroupSpecs"][0]
    return group


def container(spec: Config) -> Config:
    found: Config = worker(spec)["template"]["spec"]["containers"][0]
    return found


# (the fault, the document, an edit of its spec that makes the fault)
WRONG_MANIFEST: list[tuple[str, str, Edit]] = [
    ("unknown field of the cluster", CLUSTER, lambda s: s.update(workerGroupSpec=[])),
    ("no head", CLUSTER, lambda s: s.pop("headGroupSpec")),
    ("unknown field of a group", CLUSTER, lambda s: worker(s).update(maxReplica=4)),
    ("a group without a name", CLUSTER, lambda s: worker(s).pop("groupName")),
    ("a group without limits", CLUSTER, lambda s: worker(s).pop("maxReplicas")),
    ("more minReplicas than maxReplicas", CLUSTER, lambda s: worker(s).update(minReplicas=9)),
    ("a number as start parameter", CLUSTER, lambda s: s["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0})),
    ("resources quoted once", CLUSTER, lambda s: worker(s)["rayStartParams"].update(resources='{"brc-replay": 1}')),
    ("misspelt role", CLUSTER, lambda s: worker(s)["rayStartParams"].update(resources=r'"{\"brc-actor\": 1}"')),
    ("no token", CLUSTER, lambda s: s.pop("authOptions")),
    ("misspelt address of Redis", CLUSTER, lambda s: s.update(gcsFaultToleranceOptions={"redisAdress": "x:6379"})),
    ("unknown option of the autoscaler", CLUSTER, lambda s: s["autoscalerOptions"].update(idleTimeout=60)),
    ("unknown field of a container", CLUSTER, lambda s: container(s).update(volumeMount=[])),
    ("a container without a name", CLUSTER, lambda s: container(s).pop("name")),
    ("a number as environment variable", CLUSTER, lambda s: container(s)["env"].append({"name": "A", "value": 0})),
    ("unknown field of a pod", CLUSTER, lambda s: worker(s)["template"]["spec"].update(toleration=[])),
    ("a job without a cluster", JOB, lambda s: s.pop("clusterSelector")),
    ("a job without a command", JOB, lambda s: s.pop("entrypoint")),
    ("unknown field of a job", JOB, lambda s: s.update(entryPoint="true")),
    ("unknown field of Redis", REDIS, lambda s: s.update(replica=1)),
    ("no selector of Redis", REDIS, lambda s: s.pop("selector")),
]


@pytest.mark.parametrize(("wrong", "where", "edit"), WRONG_MANIFEST, ids=[wrong for wrong, _, _ in WRONG_MANIFEST])
def test_kubernetes_refuses(wrong: str, where: str, edit: Edit) -> None:
    document = copy.deepcopy(documents()[where])
    edit(document["spec"])
    assert wrong_document(document)


def test_the_parts_on_kubernetes_name_each_other() -> None:
    found = documents()
    cluster = found[CLUSTER]["spec"]
    job = found[JOB]["spec"]
    redis = found[REDIS]["spec"]
    (head,) = cluster["headGroupSpec"]["template"]["spec"]["containers"]
    environment = {entry["name"]: entry for entry in head["env"]}
    assert environment["RAY_AUTH_MODE"]["value"] == "token"
    assert set(environment["BRC_ROLES"]["value"].split(",")) == ROLES
    assert environment["BRC_REDIS"]["value"] == cluster["gcsFaultToleranceOptions"]["redisAddress"] == "brc-redis:6379"
    assert environment["BRC_HOME"]["value"] in {mount["mountPath"] for mount in head["volumeMounts"]}

    # Redis, Ray's head and our own processes on the head have one password, from one Secret, which is in no file
    (redis_container,) = redis["template"]["spec"]["containers"]
    secret = {"valueFrom": {"secretKeyRef": {"name": "brc-redis", "key": "password"}}}
    assert cluster["gcsFaultToleranceOptions"]["redisPassword"] == secret
    assert environment["BRC_REDIS_PASSWORD"] == {"name": "BRC_REDIS_PASSWORD", **secret}
    assert redis_container["env"] == [{"name": "REDIS_PASSWORD", **secret}]
    assert "--appendonly yes" in redis_container["args"][0]
    assert not any(name.startswith("Secret ") for name in found)

    # the Service finds Redis by the labels of its pods
    service = found["Service brc-redis"]["spec"]
    assert service["selector"] == redis["selector"]["matchLabels"] == redis["template"]["metadata"]["labels"]

    groups = {group["groupName"]: group for group in cluster["workerGroupSpecs"]}
    assert set(groups) == ROLES
    for name, group in groups.items():
        assert json.loads(json.loads(group["rayStartParams"]["resources"])) == {f"brc-{name}": 1000}
        (pod,) = group["template"]["spec"]["containers"]
        assert pod["image"] == head["image"]
        assert ("nvidia.com/gpu" in pod["resources"]["limits"]) == (name == "learner")
        assert {"name": "RAY_AUTH_MODE", "value": "token"} in pod["env"]
    cpus = int(groups["actors"]["template"]["spec"]["containers"][0]["resources"]["requests"]["cpu"])
    assert cpus * groups["actors"]["maxReplicas"] >= 500

    assert job["clusterSelector"] == {"ray.io/cluster": found[CLUSTER]["metadata"]["name"]}
    assert job["entrypoint"].startswith("python -m cluster train ")
