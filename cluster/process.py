"""A run's coordinator as a detached Ray actor on a cluster's head. Ray restarts it when it or the head dies.

The process that starts the coordinator follows its console and may exit; later processes can follow it too.
"""

from __future__ import annotations

import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
from ray.actor import ActorHandle
from ray.exceptions import RayError
from ray.experimental.internal_kv import _pin_runtime_env_uri

from cluster.backend.nodes import cluster_machine, declared_roles, wait_for_nodes
from cluster.backend.parts import NAMESPACE, Parts
from cluster.config.schema import Config
from cluster.errors import ConfigError
from cluster.plan.plan import Plan
from cluster.preflight.validation import validate
from cluster.run.folder import RunFolder, open_run
from cluster.run.mirrors import check_mirrors
from cluster.run.registry import LeaseLost, RegistryAway, find_registry
from cluster.run.session import Session
from cluster.supervise.coordinator import Coordinator
from cluster.supervise.shards import give_up_replay
from cluster.training import conduct
from dashboards.sinks.console import Console
from dashboards.sinks.view import View
from learner.config import Device
from learner.state.checkpoint import CheckpointError
from replay.store.locations import choose_folder

HEAD = {"node:__internal_head__": 0.001}  # a resource that only the head node has
PATIENCE_S = 60.0  # time for the requester of a run to read that it was refused; also to pin the code
BACK_S = 20.0  # time for a restarted coordinator to open the run before `begun` answers anyway
CONSOLE = "console.log"
PINNED_S = 86_400  # time that Ray keeps our code; the pin is renewed after half of it


class CoordinatorProcess:
    """Conduct a run in a thread. The process ends itself when the run has ended or could not begin.

    Args:
        config: configuration of the run, with its name.
        given: configuration that the user gave, before `fitted` adapted it to the cluster.
    """

    def __init__(self, config: Config, given: Config, preset: str) -> None:
        context = ray.get_runtime_context()
        self.config = config
        self.given = given
        self.preset = preset
        self.again = context.was_current_actor_reconstructed
        self.own: ActorHandle = context.current_actor
        self.open = threading.Event()
        self.refusal = ""
        self.heard = threading.Event()
        threading.Thread(target=self._run, name="coordinator", daemon=True).start()

    def begun(self) -> str:
        """Wait until the run is open. Return "", or the reason for its refusal. A restarted coordinator answers within
        BACK_S in any case: the console says what it waits for."""
        self.open.wait(BACK_S if self.again else None)
        self.heard.set()
        return self.refusal

    def configuration(self) -> Config:
        """Return the configuration that the user gave."""
        return self.given

    def _run(self) -> None:
        self._keep_code()
        try:
            with self._open_run() as folder:  # the lease is released after all parts of the run have ended
                parts = Parts(folder.id, declared_roles())
                with (folder.path / CONSOLE).open("a", buffering=1) as file:
                    self.open.set()
                    self._conduct(folder, parts, View(file))
        except (ConfigError, CheckpointError) as error:
            self._refuse(str(error))
        except BaseException:
            self._refuse(traceback.format_exc())
        finally:
            ray.kill(self.own)

    def _keep_code(self) -> None:
        """Make Ray keep the package of our code for as long as this process lives.

        By default Ray removes the package with the last detached process that uses it. It counts only processes that
        began after its head did. The end of an evaluator could then remove the package, and the next coordinator could
        not start.
        """
        package = ray.get_runtime_context().runtime_env.get("working_dir", "")
        if not package.startswith("gcs://"):
            return  # our code is installed, not uploaded
        pinned = threading.Event()
        why = "no answer"

        def pin() -> None:
            nonlocal why
            while True:
                try:
                    _pin_runtime_env_uri(package, expiration_s=PINNED_S)
                    pinned.set()
                    time.sleep(PINNED_S / 2)
                except Exception as error:  # the head is unreachable
                    why = f"{type(error).__name__}: {error}"
                    time.sleep(1.0)

        threading.Thread(target=pin, name="code", daemon=True).start()
        if not pinned.wait(PATIENCE_S):
            self._say(f"Ray does not yet keep {package}, the code of this run ({why}): it is asked on\n")

    def _conduct(self, folder: RunFolder, parts: Parts, view: View) -> None:
        try:
            with Console([task.name for task in self.plan.tasks], self.config.steps, view) as console:
                address = ray.util.get_node_ip_address()
                conduct(
                    self.plan, self.preset, folder, console, lambda one: self._drive(one, parts), self.again, address
                )
            folder.presence.may_act()
        except LeaseLost as error:  # another coordinator conducts this run, with these parts
            view.write(f"this coordinator ends: {error} has the run\n")
            return
        except BaseException:
            view.write(traceback.format_exc())
        with suppress(Exception):  # any error of a remote file system: there may be a checkpoint, so replay stays
            if not folder.checkpoints.names():
                give_up_replay(parts)
        parts.end()

    def _refuse(self, reason: str) -> None:
        """Refuse the run before it is open. A new run: give the requester time to read why. A restarted coordinator:
        end the run's parts."""
        self.refusal = reason
        self.open.set()
        if self.again:
            with suppress(RegistryAway):
                registry = find_registry(Path(self.config.runs_folder))
                known = registry.read(self.config.name, "id")
                Parts(known.id).end()
                registry.write(self.config.name, state="failed", reason=f"its coordinator could not go on: {reason}")
        else:
            self.heard.wait(PATIENCE_S)
            time.sleep(1.0)  # time for the answer to be sent

    def _open_run(self) -> RunFolder:
        """Open the run's folder. A restarted coordinator tries until it succeeds: Redis or nodes may still be starting,
        or the old lease may not have expired. The console says what it waits for."""
        told = ""
        while True:
            try:
                parts = Parts("", declared_roles())
                wait_for_nodes(parts, lambda line: None)
                self.plan = validate(self.config, cluster_machine(parts))
                if not self.again:
                    check_mirrors(self.config, ray.util.get_node_ip_address())
                return open_run(self.plan, self.preset, self.again)
            except (RegistryAway, ConfigError, OSError) as error:
                if not self.again:
                    raise
                if str(error) != told:
                    told = str(error)
                    self._say(f"this coordinator tries to go on: {told}\n")
                time.sleep(1.0)

    def _say(self, text: str) -> None:
        """Append text to the console of a run that is not open, if its folder exists."""
        with suppress(OSError), (Path(self.config.runs_folder) / self.config.name / CONSOLE).open("a") as file:
            file.write(text)

    def _drive(self, session: Session, parts: Parts) -> bool:
        device: Device = "cuda" if self.config.learner.device == "cuda" else "cpu"  # `fitted` has replaced "auto"
        live = live_on_nodes(self.plan, session.folder)
        return Coordinator(self.plan, session, live, device, parts).run()


def live_on_nodes(plan: Plan, folder: RunFolder) -> Path:
    """Return the folder for shards' files. The path is the same on all nodes; each node has its own folder there."""
    return choose_folder(plan.config.replay.directory, folder.path, folder.id, 0)


def coordinator_name(run: str) -> str:
    return f"coordinator-{run}"


def find_coordinator(run: str) -> ActorHandle | None:
    """Return the coordinator of a live run on this cluster, or None."""
    try:
        found: ActorHandle = ray.get_actor(coordinator_name(run), namespace=NAMESPACE)
    except ValueError:
        return None
    return found


def start_coordinator(config: Config, given: Config, preset: str) -> None:
    """Start the coordinator of the run that the configuration names, or find the live one. Wait until the run is open.

    Raises ConfigError when the run is refused.
    """
    options: dict[str, Any] = {
        "name": coordinator_name(config.name),
        "namespace": NAMESPACE,
        "lifetime": "detached",
        "get_if_exists": True,
        "max_restarts": -1,
        "max_concurrency": 4,
        "num_cpus": 0,
        "resources": HEAD,
    }
    handle: ActorHandle = ray.remote(CoordinatorProcess).options(**options).remote(config, given, preset)
    begun(handle)


def begun(handle: ActorHandle) -> None:
    """Wait until a run is open. Raises ConfigError when it is refused."""
    try:
        refusal = ray.get(handle.begun.remote())
    except RayError as error:
        reason = " ".join(str(error).split())[:300]
        raise ConfigError(f"the coordinator died before the run began: {reason}; start it again") from error
    if refusal:
        raise ConfigError(refusal)
