"""Sharded experience replay with a rate limiter that is part of the algorithm. docs/replay.md is its manual.

store/      the rows of every task in memory, and sampling from them
client/     the clients of actors and the learner: a handle of a shard, the writer and the sampler
snapshots/  writing a shard to files while it works, and reading it back
rate_limiter.py controls the ratio of samples to inserts, and shard.py guards it and the store with one lock.
policy_store.py passes policies from the learner, which publishes them, to actors, which pull them. Only process.py and
placement.py import Ray.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from replay.lazy import lazily

if TYPE_CHECKING:
    from replay.client.handle import LocalShard as LocalShard
    from replay.client.sampler import Sampler as Sampler
    from replay.client.writer import Writer as Writer
    from replay.policy_store import PolicyStore as PolicyStore
    from replay.rate_limiter import RateLimit as RateLimit
    from replay.shard import Shard as Shard
    from replay.shard import ShardSpec as ShardSpec
    from replay.store.storage import StorageSpec as StorageSpec
# The public names. A module is imported when its name is first used: most processes need few of them.
PUBLIC = {
    "LocalShard": "replay.client.handle",
    "PolicyStore": "replay.policy_store",
    "RateLimit": "replay.rate_limiter",
    "Sampler": "replay.client.sampler",
    "Shard": "replay.shard",
    "ShardSpec": "replay.shard",
    "StorageSpec": "replay.store.storage",
    "Writer": "replay.client.writer",
}
__all__ = tuple(PUBLIC)
__getattr__ = lazily(__name__, PUBLIC)
