"""Several hosts on this machine (fakehosts.sh), and a cluster on them as an operator would bring it up."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
ADDRESSES = {"op": "10.77.0.10", "head": "10.77.0.1", "w1": "10.77.0.2", "w2": "10.77.0.3", "store": "10.77.0.4"}
# These train. Where there is more than one CPU they leave some to the head, which Ray gives 30 s to start.
BUSY = ("w1", "w2")
REDIS = f"{ADDRESSES['store']}:6380"
S3 = f"http://{ADDRESSES['store']}:5000"
BUCKET = "brc"
# What every host that writes to the store has in its environment.
STORE = {
    "AWS_ENDPOINT_URL": S3,
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Hosts:
    """Those of ADDRESSES. Their files lie in memory, below `folder`; use as a context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "FAKEHOSTS_DIR": str(folder),
            "FAKEHOSTS_PATH": f"{ROOT}/.venv/bin" if (ROOT / ".venv").exists() else str(Path(sys.executable).parent),
        }
        for name in [name for name in self.environment if name.startswith(("RAY_", "BRC_", "AWS_"))]:
            del self.environment[name]

    def __enter__(self) -> Hosts:
        self._script("down")
        self._script("up", *map(described, ADDRESSES))
        return self

    def __exit__(self, *_: object) -> None:
        self._script("down")

    def _script(self, *arguments: str) -> None:
        subprocess.run([str(HERE / "fakehosts.sh"), *arguments], check=True, env=self.environment, timeout=120)

    def cut(self, host: str) -> None:
        self._script("cut", host)

    def mend(self, host: str) -> None:
        self._script("mend", host)

    def kill(self, host: str) -> None:
        self._script("kill", host)

    def again(self, host: str) -> None:
        """A host that was killed is back, empty."""
        self._script("up", described(host))

    def command(self, host: str, line: str) -> list[str]:
        """What runs a line in a login shell of a host."""
        return [str(HERE / "fakehosts.sh"), "in", host, "bash", "--login", "-i", "-c", f"cd {ROOT}; {line}"]

    def run(self, host: str, line: str, check: bool = True, timeout: float = 300.0) -> str:
        done = subprocess.run(
            self.command(host, line),
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        if check and done.returncode:
            raise RuntimeError(f"{host}: {line} ended with {done.returncode}:\n{done.stdout[-4000:]}")
        return done.stdout

    def start(self, host: str, line: str, output: Path) -> subprocess.Popen[bytes]:
        with output.open("wb") as file:
            return subprocess.Popen(
                self.command(host, line),
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def file(self, host: str, path: str) -> Path:
        """Of what a host has written, as seen from here."""
        return self.folder / "tmpfs" / host / "upper" / path.lstrip("/")

    def processes(self, host: str) -> list[str]:
        """Process ids and command lines of a host, but for the shell that it consists of, its ssh daemon, this look."""
        lines = self.run(host, "ps -eo pid,args --no-headers").splitlines()
        own = (
            "/usr/sbin/sshd",
            "sshd:",
            "sleep 3600",
            "ps -eo",
            "/bin/bash -c /usr/sbin/sshd",
            "bash --login -i -c cd",
        )
        found = [line.strip() for line in lines if line.split()[0].isdigit()]  # the shell may complain
        return [line for line in found if not any(word in line for word in own)]

    def state(self, run: str) -> Iterator[str]:
        """What is known of the hosts after a failure: ends of logs, processes, and where the coordinator waits."""
        head = self.file("head", "/root/.brc")
        coordinator = "py-spy dump --pid $(pgrep -f ray::Coordinator) || true"
        yield f"--- coordinator\n{self.run('head', coordinator, check=False)}"
        for host in ADDRESSES:
            yield f"--- {host}\n{self.run(host, 'ps -eo pid,stat,etime,args --no-headers | cut -c 1-160', check=False)}"
        store = self.file("store", "/root/.brc")
        gcs = self.file("head", "/tmp/ray").glob("session_2*/logs/gcs_server.err")
        records = [head / "runs" / run / "console.log", head / "runs" / run / "events.jsonl"]
        for log in [*sorted(self.folder.glob("*.log")), *head.glob("*.log"), *store.glob("*.log"), *gcs, *records]:
            yield f"--- {log}\n{log.read_text(errors='replace')[-3000:] if log.exists() else 'is not there'}"


def described(host: str) -> str:
    """A host as fakehosts.sh is told of it."""
    cpus = sorted(os.sched_getaffinity(0))
    own = cpus[: max(1, len(cpus) // 2)] if host in BUSY else cpus
    return f"{host}:{ADDRESSES[host]}:{','.join(map(str, own))}"


def description(path: Path) -> None:
    """cluster/deploy/on-prem.yaml for these hosts: their addresses, and the environment that is there already."""
    found = yaml.safe_load((ROOT / "cluster" / "deploy" / "on-prem.yaml").read_text())
    found["provider"] |= {"head_ip": ADDRESSES["head"], "worker_ips": [ADDRESSES["w1"], ADDRESSES["w2"]]}
    found["auth"] = {"ssh_user": "root", "ssh_private_key": "~/.ssh/id_fakehosts"}
    mounts = found["file_mounts"]
    found["file_mounts"] = {there: here if here[0] in "~/" else str(ROOT / here) for there, here in mounts.items()}
    for kind in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        found[kind] = []
    said = " ".join(f"{name}={value}" for name, value in STORE.items())
    head = found["head_start_ray_commands"][0].replace("BRC_STORE= ", f"BRC_STORE=s3://{BUCKET}/runs {said} ")
    head = head.replace("BRC_ROLES= ", f"BRC_ROLES= BRC_REDIS={REDIS} ")
    found["head_start_ray_commands"] = [f"BRC_RAY_OPTIONS='--object-store-memory=200000000' {head}"]
    options = "--num-cpus=3 --object-store-memory=200000000"
    worker = found["worker_start_ray_commands"][0]
    found["worker_start_ray_commands"] = [f"BRC_RAY_OPTIONS='{options}' {said} {worker}"]
    path.write_text(yaml.safe_dump(found))


def tell(what: str, **figures: Any) -> None:
    print(json.dumps({"what": what, **figures}), flush=True)
