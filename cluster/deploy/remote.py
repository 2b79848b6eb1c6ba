"""`brc remote COMMAND`: run a command as a Ray job on the cluster that is up, or here if no cluster is up.

If RAY_ADDRESS begins with http, it names the cluster. Otherwise the file that CLUSTER names, by default cluster.yaml,
describes it, and its head is reached through ssh: the dashboard, which takes jobs, listens only on the head's loopback.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from cluster.errors import ConfigError
from cluster.run.stop import do_within
from dashboards.sinks.view import OutputLost

ROOT = Path(__file__).parent.parent.parent
SENT = ("brc_at_scale.py", "learner", "actors", "replay", "cluster", "dashboards")
# The package that finds the machines of a provider. Without the package there is no cluster at that provider.
CLIENTS = {"aws": "boto3", "gcp": "googleapiclient", "local": "ray"}
BRINGS_CODE = ("train", "resume", "add-task")  # commands that run with this working tree, not with the cluster's code
RAY = (sys.executable, "-m", "ray.scripts.scripts")
# Messages: of Ray if there is no cluster, of boto3 if this machine has no account.
NO_CLUSTER = ("not found", "Unable to locate credentials", "NoCredentials")
DASHBOARD_PORT = 8265
TUNNEL_S = 60.0
STOP_S = 10.0  # time for the head to stop a job that only follows a run
# Runs a command until it or its input ends. The input is a pipe from us, which closes however we end, also by SIGKILL.
# Then the whole process group ends, with Ray's ssh; sshd then ends the shell that the ssh kept open on the head.
WITH_US = """
exec 3<&0
"$@" < /dev/null 3<&- & command=$!
{ read -r _ <&3; kill -TERM -- "-$$"; } & watch=$!
wait "$command"; code=$?
kill "$watch"
exit "$code"
"""


def run_there(arguments: Sequence[str], here: Callable[[list[str]], int]) -> int:
    """Run `brc ARGUMENTS` on the cluster, or `here(arguments)` if none is up. Show the output; return the exit code."""
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith("http"):
        return submit(address, arguments)
    description = Path(os.environ.get("CLUSTER", "cluster.yaml"))
    if address or not has_head(description):
        return here(list(arguments))
    with tunnel(description) as forwarded:
        return submit(forwarded, arguments)


def has_head(description: Path) -> bool:
    """Whether the head of a described cluster is up. Without the provider's package it counts as not up."""
    if not description.exists():
        if "CLUSTER" in os.environ:
            raise ConfigError(f"CLUSTER {description} is not there: name the file that `ray up` was given")
        return False
    client = CLIENTS.get(described(description)["provider"]["type"], "")
    if not client or importlib.util.find_spec(client) is None:
        return False
    # Ask in a new process: Ray settles its use of tokens at import, and a local Ray uses none.
    asked = subprocess.run([*RAY, "get-head-ip", str(description)], capture_output=True, text=True)
    if asked.returncode and not any(words in asked.stderr for words in NO_CLUSTER):
        reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(
            f"{description}: whether its cluster is up cannot be told ({reason}); mend that, or set RAY_ADDRESS=local "
            "to work on this machine"
        )
    return asked.returncode == 0


def described(description: Path) -> dict[str, Any]:
    """Return the description that `ray up` was given. Raises ConfigError if `ray up` would not accept it."""
    try:
        found = yaml.safe_load(description.read_text())
        provider = found["provider"]
        if provider["type"] == "local" and "coordinator_address" not in provider:
            _ = provider["head_ip"], [*provider["worker_ips"]], found["auth"]["ssh_user"]
    except (OSError, UnicodeError, yaml.YAMLError, KeyError, TypeError) as error:
        lacks = f" (it lacks {error})" if isinstance(error, KeyError) else ""
        raise ConfigError(
            f"CLUSTER {description} is not what `ray up` takes{lacks}: name another, or the cluster itself as "
            "RAY_ADDRESS=http://..."
        ) from error
    return dict(found)


@contextmanager
def tunnel(description: Path) -> Iterator[str]:
    """Forward the head's dashboard through ssh until the block or this process ends. Yield its local address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["dashboard", str(description), "--port", str(port), "--remote-port", str(DASHBOARD_PORT)]
    process = subprocess.Popen(
        ["bash", "-c", WITH_US, "tunnel", *RAY, *command, "--no-config-cache"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # Ctrl-C must not end the tunnel: we still need it to stop the job
    )
    try:
        deadline = time.monotonic() + TUNNEL_S
        while not answers(port):
            if process.poll() is not None or time.monotonic() > deadline:
                said = (process.communicate()[0] or "").strip().splitlines()[-3:]
                raise ConfigError(f"{description}: its head cannot be reached through ssh: {' '.join(said)}")
            time.sleep(0.2)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.communicate()  # closes the input, which ends the process, and waits for it


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def submit(address: str, arguments: Sequence[str]) -> int:
    """Run `brc ARGUMENTS` as a job; return its exit code. Ctrl-C or another signal to end leaves a run as it is."""
    os.environ["RAY_AUTH_MODE"] = "token"
    from ray.exceptions import RayError
    from ray.job_submission import JobSubmissionClient

    try:
        client = JobSubmissionClient(address)
        job = client.submit_job(
            entrypoint=shlex.join(["python", "-m", "cluster", *arguments]),
            submission_id=f"brc-{arguments[0] if arguments else 'help'}-{uuid.uuid4().hex[:8]}",
            runtime_env=working_tree() if arguments and arguments[0] in BRINGS_CODE else {},
        )
    except (RuntimeError, OSError, RayError) as error:
        raise ConfigError(f"the cluster at {address} takes no job: {' '.join(str(error).split())[:500]}") from error
    # A closed terminal (SIGHUP) or SIGTERM acts as Ctrl-C. SIGINT is set too: a shell may have set it to be ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    try:
        asyncio.run(show(client, job))
        return exit_code(client, job)
    except KeyboardInterrupt:
        no_more(client, job)
        print("\nno longer followed; a run goes on: `make logs` follows it again, `make stop` stops it")
        return 130
    except OutputLost:
        no_more(client, job)
        raise
    except (RuntimeError, ConnectionError, OSError) as error:
        print(
            f"the head is out of reach ({type(error).__name__}); a run goes on or comes back by itself: `make logs` "
            "follows it again",
            file=sys.stderr,
        )
        return 1


def no_more(client: Any, job: str) -> None:
    """End a job that only follows a run. Wait at most STOP_S for the head: Ray's client has no timeout."""

    def stop() -> None:
        with suppress(RuntimeError, OSError):
            client.stop_job(job)

    do_within(STOP_S, stop)


def interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


async def show(client: Any, job: str) -> None:
    async for text in client.tail_job_logs(job):
        print(text, end="", flush=True)


def exit_code(client: Any, job: str) -> int:
    """Return the exit code of a job that has ended or is about to end."""
    deadline = time.monotonic() + 30.0
    while not client.get_job_status(job).is_terminal():
        if time.monotonic() > deadline:
            raise ConnectionError
        time.sleep(0.2)
    info = client.get_job_info(job)
    code: int | None = 0 if info.status == "SUCCEEDED" else info.driver_exit_code
    if code is None:
        print(info.message, file=sys.stderr)
        return 1
    return code


def working_tree() -> dict[str, Any]:
    """Return a runtime environment with our packages from this working tree. It includes the kernels compiled
    here, which a node loads if it can."""
    if not (ROOT / "pyproject.toml").exists():
        return {}  # installed, not a working tree: use the cluster's packages
    os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"
    others = sorted(path.name for path in ROOT.iterdir() if path.name not in SENT)
    return {"working_dir": str(ROOT), "excludes": [*(f"/{name}" for name in others), "__pycache__"]}
