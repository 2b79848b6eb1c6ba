"""Checkpoints of a distributed run: learner and shards write their parts, and the session commits them as a whole."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayTaskError

from actors.deaths import DEAD, answered
from cluster.errors import RunFailed
from cluster.run.session import Session
from cluster.run.stop import CHECKPOINT_S, Stop
from cluster.supervise.learner_group import CALL_TIMEOUT_S, LearnerGroup
from cluster.supervise.shards import ShardGroup
from replay.urls import open_url

STALL_S = 10.0  # a late checkpoint is given up after its files have not grown for this time
LOOK_S = 0.5


@dataclass(frozen=True)
class Saving:
    """A checkpoint under way."""

    name: str
    snapshot: str
    env_steps: int
    started: float
    learner: ray.ObjectRef
    shards: list[ray.ObjectRef]

    @property
    def parts(self) -> list[ray.ObjectRef]:
        return [self.learner, *self.shards]


class Saver:
    """Begin and commit checkpoints. At most one checkpoint is under way.

    Attributes:
        newest: name of the newest checkpoint, or "".
        died_saving: whether a part has died during a checkpoint since the newest one.
        late: name of the last checkpoint that was reported as late.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self.newest = session.folder.checkpoint
        self.saving: Saving | None = None
        self.died_saving = False
        self.late = ""

    def begin(self, env_steps: int, learner: LearnerGroup, shards: ShardGroup) -> None:
        """Ask all parts to write their shares. Record a checkpoint that cannot be begun as failed."""
        try:
            name, snapshot = self.session.begin_checkpoint(env_steps)
        except Exception as error:  # any error of a remote file system
            self.session.checkpoint_failed(env_steps, error)
            return
        asked = learner.first.save.remote(self.session.folder.checkpoints.url(name))
        self.saving = Saving(name, snapshot, env_steps, time.monotonic(), asked, shards.save(snapshot))

    def commit(self, incarnation: int, stop: Stop | None = None) -> bool:
        """Commit the checkpoint under way once all parts have written it. Return whether this call committed it. With
        `stop`, wait for the parts: CHECKPOINT_S after a stop, or after ten minutes, only while files grow."""
        saving = self.saving
        if saving is None:
            return False
        if stop is None and not all(answered(part) for part in saving.parts):
            self._tell_if_late(saving)
            return False
        self.saving = None
        try:
            # All parts have stopped writing before the checkpoint is committed or removed.
            if stop is not None:
                self._wait(saving, stop)
            updates, learner_s = written(saving.learner)
            new_bytes, shard_s = zip(*[written(part) for part in saving.shards], strict=True)
            saved = saving.name, saving.snapshot, saving.env_steps
            seconds = {"learner": learner_s, "replay": max(shard_s)}
            self.session.commit_checkpoint(*saved, updates, incarnation, sum(new_bytes), saving.started, seconds)
        except Exception as error:  # also any error of a remote file system
            self.session.checkpoint_failed(saving.env_steps, error, saving.name)
            if isinstance(error, DEAD):
                self.died_saving = True
                self.session.milestones.checkpoint_soon()
            return False
        self.newest, self.died_saving = saving.name, False
        return True

    def _tell_if_late(self, saving: Saving) -> None:
        """Report once that a checkpoint is late. A part that waits for a store cannot be cancelled: it goes on writing
        when the store answers."""
        seconds = time.monotonic() - saving.started
        if seconds > CALL_TIMEOUT_S and self.late != saving.name:
            self.late = saving.name
            self.session.checkpoint_late(saving.env_steps, seconds)

    def _wait(self, saving: Saving, stop: Stop) -> None:
        """Wait until all parts have answered or failed. Raises RunFailed when a late checkpoint stops growing."""
        began = grown_at = time.monotonic()
        held = -1
        while len(ray.wait(saving.parts, num_returns=len(saving.parts), timeout=LOOK_S)[0]) < len(saving.parts):
            now = time.monotonic()
            if (found := self._bytes(saving)) != held:
                held, grown_at = found, now
            late = now - began > CALL_TIMEOUT_S or stop.left(CHECKPOINT_S) <= 0.0
            if late and now - grown_at > STALL_S:
                raise RunFailed(
                    f"a part has not written its share after {now - began:.0f} s, and nothing has been written of it "
                    f"for {now - grown_at:.0f} s"
                )

    def _bytes(self, saving: Saving) -> int:
        """Return the bytes of the checkpoint and of replay's snapshots, as visible from this process."""
        folder = self.session.folder
        try:
            return size(folder.checkpoints.url(saving.name)) + size(folder.replay_url)
        except Exception:  # any error of a remote file system
            return 0


def written(part: ray.ObjectRef) -> Any:
    """Return the answer of a part that has written. Raises RunFailed if it could not, an error of DEAD if it died."""
    try:
        return ray.get(part)
    except DEAD:
        raise
    except RayTaskError as error:
        raise RunFailed(str(error)) from error


def size(url: str) -> int:
    """Return the bytes of all files in a folder; 0 if there is no such folder."""
    files, root = open_url(url)
    files.invalidate_cache()
    return int(files.du(root)) if files.exists(root) else 0
