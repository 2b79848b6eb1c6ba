"""What happens once in a run: a frozen dataclass for each kind, and the row of events.jsonl that tells of it.

A row has `time`, `elapsed_s` and `session`, the kind as `event`, the sentence for people as `reason`, and the fields of
the kind. Programs look at these, never into the sentence.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from actors.causes import Cause
from dashboards.codec import FLAT, Float, decode, encode
from learner.reports import Ready
from replay.stats import Content

SCHEMA = 2  # of rows, checkpoints and kept states; those without a number are of schema 1
KINDS: dict[str, type[Event]] = {}


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened once. `reason` is a sentence for people."""

    kinds: ClassVar[tuple[str, ...]] = ()
    reason: str = ""

    def __init_subclass__(cls) -> None:
        cls.kinds = cls.__dict__.get("kinds") or (re.sub(r"(?<=.)(?=[A-Z])", "_", cls.__name__).lower(),)
        KINDS.update(dict.fromkeys(cls.kinds, cls))

    @property
    def kind(self) -> str:
        return self.kinds[0]


@dataclass(frozen=True, kw_only=True)
class Begun(Event):
    """A process begins to conduct the run: at its start, after a stop, or in the place of a coordinator that died.

    Attributes:
        kept_steps, kept_updates: where the coordinator that died had got to.
        from_steps, from_elapsed_s: where the checkpoint is that the run goes on from; None where nothing is undone.
        actors: how many are wanted, by benchmark.
        version, commit: of this project; "" where it is not known.
    """

    kinds = ("start", "resume", "coordinator_back")
    how: Literal["start", "resume", "coordinator_back"] = "start"
    preset: str = ""
    execution: str = ""
    actors: dict[str, int] = field(default_factory=dict)
    shards: int = 1
    versions: dict[str, str] = field(default_factory=dict)
    python: str = ""
    kept_steps: int = 0
    kept_updates: int = 0
    from_steps: int | None = None
    from_elapsed_s: float | None = None
    version: str = ""
    commit: str = ""
    schema: int = 1

    @property
    def kind(self) -> str:
        return self.how


@dataclass(frozen=True, kw_only=True)
class GoneBack(Event):
    """A coordinator that is back found no replay: the run goes back to its checkpoint."""

    from_steps: int
    from_elapsed_s: Float


@dataclass(frozen=True, kw_only=True)
class LearnerReady(Event):
    """The learner is made or restored."""

    learner: Ready = field(metadata=FLAT)


@dataclass(frozen=True, kw_only=True)
class LearnerDied(Event):
    """A rank died or hangs; `updates` were made, as far as is known."""

    cause: Cause = Cause.DIED
    updates: int


@dataclass(frozen=True, kw_only=True)
class LearnerRestarted(Event):
    """New ranks go on from the newest checkpoint."""

    learner: Ready = field(metadata=FLAT)
    lost_updates: int


@dataclass(frozen=True, kw_only=True)
class ShardBegan(Event):
    """A replay shard began; `reason` says what was wrong with what it could not take over."""

    shard: int
    node: str
    content: Content = field(metadata=FLAT)


@dataclass(frozen=True, kw_only=True)
class ShardDied(Event):
    cause: Cause = Cause.DIED
    shard: int


@dataclass(frozen=True, kw_only=True)
class ShardBack(Event):
    """A shard was started again after `seconds`, and lacks `lost` of the transitions that it had."""

    shard: int
    node: str
    content: Content = field(metadata=FLAT)
    lost: int
    seconds: Float


@dataclass(frozen=True, kw_only=True)
class ActorStarted(Event):
    actor: str
    incarnation: int


@dataclass(frozen=True, kw_only=True)
class ActorDied(Event):
    cause: Cause = Cause.DIED
    actor: str
    incarnation: int


@dataclass(frozen=True, kw_only=True)
class Scaled(Event):
    """Other numbers of actors are wanted, by benchmark."""

    actors: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class EvaluatorDied(Event):
    """An evaluator is replaced, which the evaluation at `env_steps` has waited for."""

    cause: Cause = Cause.DIED
    evaluator: str  # its benchmark
    env_steps: int


@dataclass(frozen=True, kw_only=True)
class EvaluationLost(Event):
    """There will be no evaluation at `env_steps`."""

    env_steps: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Event):
    """A checkpoint is whole.

    Attributes:
        checkpoint: its folder or URL; snapshot: the name of replay's part of it.
        seconds: that it took; part_seconds: those of learner, replay and commit.
        part_bytes: written by learner and replay.
    """

    env_steps: int
    updates: int
    checkpoint: str
    snapshot: str
    seconds: Float
    part_seconds: dict[str, Float]
    part_bytes: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class CheckpointFailed(Event):
    env_steps: int


@dataclass(frozen=True, kw_only=True)
class CheckpointLate(Event):
    env_steps: int


@dataclass(frozen=True, kw_only=True)
class PruneFailed(Event):
    """Snapshots that no checkpoint needs could not be removed."""


@dataclass(frozen=True, kw_only=True)
class BadNumbers(Event):
    """A task returned its first reward or observation that is no number to learn from."""

    task: str
    copy: int
    what: str
    value: str


@dataclass(frozen=True, kw_only=True)
class ObservationsClipped(Event):
    """A task returned its first observations beyond the range of replay's type."""

    task: str
    numbers: int


@dataclass(frozen=True, kw_only=True)
class MirrorFailed(Event):
    mirror: str


@dataclass(frozen=True, kw_only=True)
class ConsoleLost(Event):
    """Nobody is shown the run any more."""


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The run met its budget."""


@dataclass(frozen=True, kw_only=True)
class Stopped(Event):
    """The run was asked to stop."""


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The run ended since a part of it failed."""

    cause: Cause = Cause.DIED


@dataclass(frozen=True, kw_only=True)
class Foreign(Event):
    """An event of a kind that this version does not know."""

    word: str
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> str:
        return self.word


@dataclass(frozen=True)
class Entry:
    """An event with when it happened.

    Attributes:
        time: seconds since 1970, by a clock that may go back.
        elapsed_s: seconds that the run had taken; None in rows of early versions.
        session: counts the processes that have conducted the run; 0 in rows of early versions.
    """

    time: Float
    elapsed_s: float | None
    event: Event
    session: int = 0


def to_row(entry: Entry) -> dict[str, Any]:
    """The row of events.jsonl."""
    event = entry.event
    row = {"time": entry.time, "elapsed_s": entry.elapsed_s, "event": event.kind, "reason": event.reason}
    details = {name: value for name, value in encode(event).items() if name != "how" and value is not None}
    return row | details | {"session": entry.session}


def from_row(row: dict[str, Any]) -> Entry:
    """What a row of events.jsonl tells; Foreign where its kind or form is not known here."""
    kind = row["event"]
    event: Event | None = None
    if kind in KINDS:
        with suppress(ValueError):
            event = decode(KINDS[kind], row | {"how": kind})
    if event is None:
        common = ("time", "elapsed_s", "event", "reason", "session")
        details = {name: value for name, value in row.items() if name not in common}
        event = Foreign(reason=row.get("reason", ""), word=kind, details=details)
    return Entry(row["time"], row.get("elapsed_s"), event, row.get("session", 0))
