"""Events of a run: a frozen dataclass for each kind, and its row of events.jsonl.

A row has `time`, `elapsed_s` and `session`, the kind as `event`, a sentence for people as `reason`, and the fields of
the kind. Programs read the fields, never the sentence.
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

SCHEMA = 2  # of events.jsonl, in the first event of a run; without a number it is 1
# Schema 1 has no causes: words in the reason of a death, of which the first that is found counts.
WORDS = (
    ("its node has died", Cause.NODE_LOST),
    ("unavailable", Cause.OUT_OF_REACH),
    ("OutOfMemory", Cause.OUT_OF_MEMORY),
    ("it has grown to", Cause.OUT_OF_MEMORY),
    ("has not made a step", Cause.HUNG),
    ("not answer", Cause.HUNG),
    ("bad numbers", Cause.BAD_NUMBERS),
    ("_loss became ", Cause.LOSS_NOT_FINITE),
    ("Traceback", Cause.RAISED),
)
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
    """A process begins to conduct the run: at its start, at a resume, or in place of a coordinator that died.

    Attributes:
        kept_steps, kept_updates: progress of the coordinator that died.
        from_steps, from_elapsed_s: position of the checkpoint that the run resumes from; None if nothing is undone.
        actors: wanted actors by benchmark.
        version, commit: version and commit of this project; "" if unknown.
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
    """A restarted coordinator found no replay: the run goes back to its checkpoint."""

    from_steps: int
    from_elapsed_s: Float


@dataclass(frozen=True, kw_only=True)
class LearnerReady(Event):
    """The learner is made or restored."""

    learner: Ready = field(metadata=FLAT)


@dataclass(frozen=True, kw_only=True)
class LearnerDied(Event):
    """A rank died or hangs. `updates` is the last known number of updates."""

    cause: Cause = Cause.DIED
    updates: int


@dataclass(frozen=True, kw_only=True)
class LearnerRestarted(Event):
    """New ranks go on from the newest checkpoint."""

    learner: Ready = field(metadata=FLAT)
    lost_updates: int


@dataclass(frozen=True, kw_only=True)
class ShardBegan(Event):
    """A replay shard began. `reason` says why it could not take over content, if so."""

    shard: int
    node: str
    content: Content = field(metadata=FLAT)


@dataclass(frozen=True, kw_only=True)
class ShardDied(Event):
    cause: Cause = Cause.DIED
    shard: int


@dataclass(frozen=True, kw_only=True)
class ShardBack(Event):
    """A shard was restarted after `seconds`. It has lost `lost` of its transitions."""

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
    """The wanted numbers of actors have changed; `actors` has them by benchmark."""

    actors: dict[str, int]


@dataclass(frozen=True, kw_only=True)
class EvaluatorDied(Event):
    """An evaluator is replaced. The evaluation at `env_steps` has waited for it."""

    cause: Cause = Cause.DIED
    evaluator: str  # its benchmark
    env_steps: int


@dataclass(frozen=True, kw_only=True)
class EvaluationLost(Event):
    """The evaluation at `env_steps` is lost: it will not be made."""

    env_steps: int


@dataclass(frozen=True, kw_only=True)
class Checkpoint(Event):
    """A checkpoint is whole.

    Attributes:
        checkpoint: its folder or URL; snapshot: name of replay's part.
        seconds: its whole duration; part_seconds: durations of learner, replay and commit.
        part_bytes: bytes written by learner and replay.
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
    """A task returned its first reward or observation that cannot be learned from, such as NaN."""

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
    """The console cannot show the run any more."""


@dataclass(frozen=True, kw_only=True)
class Finished(Event):
    """The run met its budget."""


@dataclass(frozen=True, kw_only=True)
class Stopped(Event):
    """The run was asked to stop."""


@dataclass(frozen=True, kw_only=True)
class Failed(Event):
    """The run ended because a part of it failed."""

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
    """An event with its time.

    Attributes:
        time: seconds since 1970, by a clock that may go back.
        elapsed_s: seconds that the run had taken; None in rows of early versions.
        session: number of the process that conducted the run; 0 in rows of early versions.
    """

    time: Float
    elapsed_s: float | None
    event: Event
    session: int = 0


def to_row(entry: Entry) -> dict[str, Any]:
    """Return the row of events.jsonl for an entry."""
    event = entry.event
    row = {"time": entry.time, "elapsed_s": entry.elapsed_s, "event": event.kind, "reason": event.reason}
    details = {name: value for name, value in encode(event).items() if name != "how" and value is not None}
    return row | details | {"session": entry.session}


def from_row(row: dict[str, Any]) -> Entry:
    """Return the entry of a row of events.jsonl. Its event is Foreign if kind or form is unknown."""
    kind = row["event"]
    event: Event | None = None
    if "cause" not in row and (kind == "failed" or kind.endswith("_died")):
        reason = row.get("reason", "")
        row = row | {"cause": next((cause for words, cause in WORDS if words in reason), Cause.DIED).value}
    if kind in KINDS:
        with suppress(ValueError):
            event = decode(KINDS[kind], row | {"how": kind})
    if event is None:
        common = ("time", "elapsed_s", "event", "reason", "session")
        details = {name: value for name, value in row.items() if name not in common}
        event = Foreign(reason=row.get("reason", ""), word=kind, details=details)
    return Entry(row["time"], row.get("elapsed_s"), event, row.get("session", 0))
