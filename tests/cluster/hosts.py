"""Several hosts on this machine (fakehosts.sh), and the description with which an operator starts a cluster on them."""

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
# Hosts that train. If there are several CPUs, they leave some to the head: Ray gives the head 30 s to start.
BUSY = ("w1", "w2")
REDIS = f"{ADDRESSES['store']}:6380"
S3 = f"http://{ADDRESSES['store']}:5000"
BUCKET = "brc"
# Environment variables of every host that writes to the store.
STORE = {
    "AWS_ENDPOINT_URL": S3,
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


class Hosts:
    """The hosts of ADDRESSES, as a context manager. Their files are in memory, below `folder`."""

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
        """Start a killed host again. Its files are gone."""
        self._script("up", described(host))

    def command(self, host: str, line: str) -> list[str]:
        """Return the command that runs a line in a login shell of a host."""
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
        """Return where a file that a host has written is on this machine."""
        return self.folder / "tmpfs" / host / "upper" / path.lstrip("/")

    def processes(self, host: str) -> list[str]:
        """Return process ids and command lines of a host, without its first shell, its ssh daemon and this `ps`."""
        lines = self.run(host, "ps -eo pid,args --no-headers").splitlines()
        own = (
            "/usr/sbin/sshd",
            "sshd:",
            "sleep 3600",
            "ps -eo",
            "/bin/bash -c /usr/sbin/sshd",
            "bash --login -i -c cd",
        )
        found = [line.strip() for line in lines if line.split()[0].isdigit()]  # other lines are warnings of the shell
        return [line for line in found if not any(word in line for word in own)]

    def state(self, run: str) -> Iterator[str]:
        """Yield the state of the hosts after a failure: the coordinator's stacks, processes, and ends of logs."""
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
    """Return the argument of fakehosts.sh for a host: name, address and CPUs."""
    cpus = sorted(os.sched_getaffinity(0))
    own = cpus[: max(1, len(cpus) // 2)] if host in BUSY else cpus
    return f"{host}:{ADDRESSES[host]}:{','.join(map(str, own))}"


def description(path: Path) -> None:
    """Write cluster/deploy/on-prem.yaml with the addresses of these hosts, whose environment needs no setup."""
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
