"""`brc remote COMMAND`: runs a command on the cluster that is up, as a Ray job, or here if none is.

The cluster is that of RAY_ADDRESS, when it begins with http, or else the one that CLUSTER, by default cluster.yaml,
describes, whose head is reached through ssh: its dashboard, which takes jobs, listens on its own loopback alone.
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
# What finds the machines of a provider. Whoever does not have it has no cluster there.
CLIENTS = {"aws": "boto3", "gcp": "googleapiclient", "local": "ray"}
BRINGS_CODE = ("train", "add-task")  # commands that run with this working tree, not with what the cluster has
RAY = (sys.executable, "-m", "ray.scripts.scripts")
# How Ray says that there is none, and boto3 that this machine has no account.
NO_CLUSTER = ("not found", "Unable to locate credentials", "NoCredentials")
DASHBOARD_PORT = 8265
TUNNEL_S = 60.0
STOP_S = 10.0  # for a head to take word that nobody follows any more
# Runs a command until it ends or the input does: that is a pipe from us, which closes however we end, also by SIGKILL.
# Then all of the group goes, Ray's ssh included; sshd ends the shell that this has kept open on the head.
WITH_US = """
exec 3<&0
"$@" < /dev/null 3<&- & command=$!
{ read -r _ <&3; kill -TERM -- "-$$"; } & watch=$!
wait "$command"; code=$?
kill "$watch"
exit "$code"
"""


def run_there(arguments: Sequence[str], here: Callable[[list[str]], int]) -> int:
    """Run `brc ARGUMENTS` on the cluster and show what it says; its exit code. Without one, `here(arguments)`."""
    address = os.environ.get("RAY_ADDRESS", "")
    if address.startswith("http"):
        return submit(address, arguments)
    description = Path(os.environ.get("CLUSTER", "cluster.yaml"))
    if address or not has_head(description):
        return here(list(arguments))
    with tunnel(description) as forwarded:
        return submit(forwarded, arguments)


def has_head(description: Path) -> bool:
    """Whether the head of a described cluster is up. What cannot be asked is not."""
    if not description.exists():
        if "CLUSTER" in os.environ:
            raise ConfigError(f"CLUSTER {description} is not there: name the file that `ray up` was given")
        return False
    client = CLIENTS.get(described(description)["provider"]["type"], "")
    if not client or importlib.util.find_spec(client) is None:
        return False
    # In a process of its own: a Ray that is imported has made up its mind about tokens, and a local one has none.
    asked = subprocess.run([*RAY, "get-head-ip", str(description)], capture_output=True, text=True)
    if asked.returncode and not any(words in asked.stderr for words in NO_CLUSTER):
        reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise ConfigError(
            f"{description}: whether its cluster is up cannot be told ({reason}); mend that, or set RAY_ADDRESS=local "
            "to work on this machine"
        )
    return asked.returncode == 0


def described(description: Path) -> dict[str, Any]:
    """What `ray up` was given. Raises ConfigError for what it would not take."""
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
    """The address of the head's dashboard, forwarded through ssh for as long as the block lasts, or this process."""
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
        start_new_session=True,  # Ctrl-C is for us: what was forwarded is still wanted for the last words
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
        process.communicate()  # closes its input first, which ends it


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def submit(address: str, arguments: Sequence[str]) -> int:
    """Run `brc ARGUMENTS` as a job. Ctrl-C, like what else asks this to end, leaves a run as it is."""
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
    # Whoever ends us otherwise, such as a terminal that closes, means the same; a shell may have SIGINT ignored.
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
    """End a job that only follows a run, if the head answers in time: Ray's client has no limit of its own."""

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
    """Of a job that has ended, or will at once."""
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
    """A runtime environment with our packages as they are here, the kernel compiled here included: it is loaded where
    it can be."""
    if not (ROOT / "pyproject.toml").exists():
        return {}  # installed, not checked out: the cluster has its own
    os.environ["RAY_RUNTIME_ENV_IGNORE_GITIGNORE"] = "1"
    others = sorted(path.name for path in ROOT.iterdir() if path.name not in SENT)
    return {"working_dir": str(ROOT), "excludes": [*(f"/{name}" for name in others), "__pycache__"]}
