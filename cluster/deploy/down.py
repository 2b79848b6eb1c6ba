"""`python -m cluster.deploy.down cluster.yaml`: end a cluster and all its processes on every host."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.deploy.remote import RAY, described
from cluster.errors import ConfigError
from dashboards.sinks.view import shown

# The second is where version 0.1.0 has it. A host without either runs nothing of ours.
NODES = "~/brc-at-scale/cluster/deploy/node.sh ~/brc-at-scale/cluster/node.sh"
STOP = f"for node in {NODES}; do test ! -x $node || exec $node stop; done"
SSH = ("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR")
SSH_S = 120.0


def main(description: Path) -> int:
    """End the cluster; return the exit code. Release cloud machines. On own hosts first end the service of node.sh,
    workers before the head: it would restart Ray, and `ray down` forgets such workers."""
    found = described(description)
    failed = 0
    if "worker_ips" in found["provider"]:
        for host in [*found["provider"]["worker_ips"], found["provider"]["head_ip"]]:
            failed += not stopped(host, found["auth"])
    environment = os.environ | {"RAY_AUTH_MODE": "token", "RAY_UP_enable_autoscaler_v2": "0"}
    command = [*RAY, "down", str(description), "-y"]
    return relayed(command, environment) or (1 if failed else 0)


def relayed(command: list[str], environment: dict[str, str]) -> int:
    """Run a command to its end, even if nobody reads its output. Return its exit code."""
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        print(line, end="", flush=True)
    return process.wait()


def stopped(host: str, auth: dict[str, Any]) -> bool:
    """Stop our processes on a host through ssh. Return whether that succeeded."""
    key = ["-i", os.path.expanduser(auth["ssh_private_key"])] if "ssh_private_key" in auth else []
    proxy = ["-o", f"ProxyCommand={auth['ssh_proxy_command']}"] if auth.get("ssh_proxy_command") else []
    shell = f"bash --login -i -c '{STOP}' 2>&1"
    command = ["ssh", *SSH, *proxy, *key, "-o", "ConnectTimeout=10", f"{auth['ssh_user']}@{host}", shell]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=SSH_S)
        if done.returncode == 0:
            print(f"{host}: nothing runs any more")
            return True
        reason = (done.stdout + done.stderr).strip().splitlines()[-1:]
    except subprocess.TimeoutExpired:
        reason = [f"no answer within {SSH_S:.0f} s"]
    print(f"{host}: could not be stopped: {' '.join(reason)}", file=sys.stderr)
    return False


def refusing(description: Path) -> int:
    """Call `main`. For a bad description, print a sentence and return exit code 2."""
    try:
        return main(description)
    except ConfigError as error:
        print(f"brc: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(shown(lambda: refusing(Path(sys.argv[1])), lasting=True))
