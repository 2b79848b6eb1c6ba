"""Demonstrations: episodes of a task in files, as Minari datasets or as npz, and as rows of replay.

An npz file has a row for each transition: observations (n, size), actions (n, action) in [-1, 1], rewards (n,),
next_observations (n, size), terminations (n,) and truncations (n,) bool. A transition follows the one before it unless
that ended, or its next observation is another one. Observations are as the task's environment gives them here: flat,
privileged numbers last.

A Minari dataset is a folder that holds `data/metadata.json`, or the id of a dataset that Minari finds. Parts of a
dictionary of observations are put together in the order of the task's keys. Its actions are turned into [-1, 1] by the
bounds of its action space.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from replay.store.rows import CONTEXT, LAST, TERMINAL, Rows
from replay.store.soundness import LARGEST_NUMBER, all_numbers

ARRAYS = ("observations", "actions", "rewards", "next_observations", "terminations", "truncations")
INSTALL = "pip install 'minari[hdf5]'"


class BadDemonstrations(ValueError):
    """Demonstrations that cannot be used. The message is one sentence with their path."""


class Episode(NamedTuple):
    """Transitions that follow each other: a whole episode, or a part of one."""

    observations: np.ndarray  # (n + 1, size) float32
    actions: np.ndarray  # (n, action) float32 in [-1, 1]
    rewards: np.ndarray  # (n,) float32
    terminated: bool  # whether the last observation is terminal
    whole: bool = True  # whether it is an episode from its first step to its end


def read(path: str, keys: Sequence[str], observed: int, acted: int) -> list[Episode]:
    """Return the episodes in a file or dataset.

    Args:
        keys: keys of the task's observations, in their order.
        observed, acted: sizes of the task's observation, privileged numbers included, and of its action.

    Raises BadDemonstrations, with the reason.
    """
    try:
        found = list(of_npz(path) if path.endswith(".npz") else of_minari(path, keys))
    except BadDemonstrations:
        raise
    except Exception as error:  # files of other programs may raise anything
        raise BadDemonstrations(f"{path} cannot be read: {type(error).__name__}: {error}") from error
    if not found:
        raise BadDemonstrations(f"{path} holds no transition")
    for episode in found:
        sizes = episode.observations.shape[1:], episode.actions.shape[1:]
        if sizes != ((observed,), (acted,)):
            raise BadDemonstrations(
                f"{path} has observations of shape {sizes[0]} and actions of shape {sizes[1]}, and the task "
                f"{(observed,)} and {(acted,)}"
            )
        if not all_numbers(*episode[:3]):
            raise BadDemonstrations(f"{path} holds numbers that are not finite, or beyond {LARGEST_NUMBER:g}")
        if (np.abs(episode.actions) > 1.0 + 1e-5).any():
            raise BadDemonstrations(f"{path} has actions up to {np.abs(episode.actions).max():g}, and not in [-1, 1]")
    return found


@dataclass(frozen=True, kw_only=True)
class Source:
    """A file or dataset with demonstrations of the task with this index. `keys`, `observed` and `acted` are the keys of
    its observations, and the sizes of observation and action."""

    task: int
    path: str
    keys: tuple[str, ...]
    observed: int
    acted: int

    def episodes(self) -> list[Episode]:
        return read(self.path, self.keys, self.observed, self.acted)


def of_npz(path: str) -> Iterator[Episode]:
    with np.load(path) as file:
        missing = [name for name in ARRAYS if name not in file]
        if missing:
            raise BadDemonstrations(f"{path} lacks {', '.join(missing)}: it needs {', '.join(ARRAYS)}")
        found = {name: file[name] for name in ARRAYS}
    for name in ("rewards", "terminations", "truncations"):
        if found[name].ndim != 1 or found[name].dtype.kind not in "fiub":
            raise BadDemonstrations(f"{path} has {name} of shape {found[name].shape} and {found[name].dtype}, not (n,)")
    lengths = {name: len(array) for name, array in found.items()}
    if len(set(lengths.values())) != 1:
        raise BadDemonstrations(f"{path} has arrays of different lengths: {lengths}")
    observations, following = (np.asarray(found[name], np.float32) for name in ("observations", "next_observations"))
    ended = found["terminations"].astype(bool) | found["truncations"].astype(bool)
    over = ended.copy()
    over[:-1] |= (following[:-1] != observations[1:]).any(axis=1)  # a gap
    over[-1:] = True
    begin = 0
    for end in (np.flatnonzero(over) + 1).tolist():
        whole = bool(ended[end - 1]) and (not begin or bool(ended[begin - 1]))
        yield Episode(
            np.concatenate([observations[begin:end], following[end - 1 : end]]),
            np.asarray(found["actions"][begin:end], np.float32),
            np.asarray(found["rewards"][begin:end], np.float32),
            bool(found["terminations"][end - 1]),
            whole,
        )
        begin = end


def of_minari(path: str, keys: Sequence[str]) -> Iterator[Episode]:
    dataset = opened(path)
    space = dataset.action_space
    for episode in dataset.iterate_episodes():
        length = len(episode.rewards)
        if length:
            yield Episode(
                flat(path, episode.observations, keys),
                normalized(path, np.asarray(episode.actions).reshape(length, -1), space),
                np.asarray(episode.rewards, np.float32),
                bool(episode.terminations[-1]),
                bool(episode.terminations[-1] or episode.truncations[-1]),
            )


def opened(path: str) -> Any:
    """Return a dataset of Minari."""
    try:
        import minari
    except ImportError as error:
        raise BadDemonstrations(f"{path} is read by Minari, which is not installed: {INSTALL}") from error
    folder = Path(path)
    data = folder / "data" if (folder / "data").is_dir() else folder
    return minari.MinariDataset(str(data)) if data.is_dir() else minari.load_dataset(path)


def flat(path: str, observed: Any, keys: Sequence[str]) -> np.ndarray:
    """Return observations (n, size) float32."""
    if not isinstance(observed, Mapping):
        return np.asarray(observed, np.float32).reshape(len(observed), -1)
    missing = [key for key in keys if key not in observed]
    if missing:
        raise BadDemonstrations(f"{path} observes {', '.join(observed)}, and the task also {', '.join(missing)}")
    parts = [np.asarray(observed[key], np.float32) for key in keys]
    return np.concatenate([part.reshape(len(part), -1) for part in parts], axis=1)


def normalized(path: str, actions: np.ndarray, space: Any) -> np.ndarray:
    """Return actions (n, action) float32 in [-1, 1] from those of a Box with bounds."""
    low, high = (np.ravel(getattr(space, side, np.nan)).astype(np.float64) for side in ("low", "high"))
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise BadDemonstrations(f"{path} has actions without bounds, {space}: they cannot be brought into [-1, 1]")
    if (low == -1.0).all() and (high == 1.0).all():
        return np.asarray(actions, np.float32)
    return np.asarray(2.0 * (actions - low) / (high - low) - 1.0, np.float32)


def write_npz(file: Path, episodes: Sequence[Episode]) -> None:
    """Write episodes to a file that `read` reads back as they are."""
    ends = [len(episode.rewards) for episode in episodes]
    last = np.zeros(sum(ends), bool)
    last[np.cumsum(ends) - 1] = True
    terminated = np.repeat([episode.terminated for episode in episodes], ends) & last
    file.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(
        file,
        observations=np.concatenate([episode.observations[:-1] for episode in episodes]),
        actions=np.concatenate([episode.actions for episode in episodes]),
        rewards=np.concatenate([episode.rewards for episode in episodes]),
        next_observations=np.concatenate([episode.observations[1:] for episode in episodes]),
        terminations=terminated,
        truncations=last & ~terminated & np.repeat([episode.whole for episode in episodes], ends),
    )


def write_minari(folder: Path, dataset_id: str, episodes: Sequence[Episode], description: str) -> Path:
    """Write episodes as a new dataset of Minari below a folder, and return the dataset's folder. Raises
    BadDemonstrations if Minari is not installed or the dataset exists."""
    try:
        import minari
        from gymnasium import spaces
        from minari.data_collector import EpisodeBuffer
    except ImportError as error:
        raise BadDemonstrations(f"Minari, which writes datasets, is not installed: {INSTALL}") from error
    place = folder / dataset_id
    if place.exists():
        raise BadDemonstrations(f"{place} exists already: remove it, or write to another folder")
    (size,), (acts,) = episodes[0].observations.shape[1:], episodes[0].actions.shape[1:]
    buffers = []
    for number, episode in enumerate(episodes):
        last = np.arange(len(episode.rewards)) == len(episode.rewards) - 1
        buffers.append(
            EpisodeBuffer(
                id=number,
                observations=episode.observations,
                actions=episode.actions,
                rewards=episode.rewards.tolist(),
                terminations=(last & episode.terminated).tolist(),
                truncations=(last & (episode.whole and not episode.terminated)).tolist(),
            )
        )
    before = os.environ.get("MINARI_DATASETS_PATH")
    os.environ["MINARI_DATASETS_PATH"] = str(folder)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about authors and environments that it would like to know
            minari.create_dataset_from_buffers(
                dataset_id,
                buffer=buffers,
                observation_space=spaces.Box(-np.inf, np.inf, (size,)),
                action_space=spaces.Box(-1.0, 1.0, (acts,)),
                algorithm_name="BRC",
                description=description,
            )
    finally:
        if before is None:
            del os.environ["MINARI_DATASETS_PATH"]
        else:
            os.environ["MINARI_DATASETS_PATH"] = before
    return place


def to_rows(episode: Episode, action_size: int) -> Rows:
    """Return an episode as one segment of rows, with actions padded to `action_size`."""
    count = len(episode.rewards)
    actions = np.zeros((count + 1, action_size), np.float32)
    actions[:count, : episode.actions.shape[1]] = episode.actions
    flags = np.zeros(count + 1, np.uint8)
    flags[count - 1] = TERMINAL if episode.terminated else 0
    flags[count] = LAST
    return Rows(episode.observations, actions, np.append(episode.rewards, np.float32(0.0)), flags)


def to_episodes(rows: Rows, action_size: int) -> list[Episode]:
    """Return the segments of flat rows as parts of episodes, with the first `action_size` numbers of each action.
    Segments that are never drawn, as they held bad numbers, are left out."""
    found, begin = [], 0
    for end in np.flatnonzero(rows.last).tolist():
        if end > begin and not (rows.flags[begin:end] & CONTEXT).any():
            found.append(
                Episode(
                    np.asarray(rows.observations[begin : end + 1], np.float32),
                    rows.actions[begin:end, :action_size].copy(),
                    rows.rewards[begin:end].copy(),
                    bool(rows.flags[end - 1] & TERMINAL),
                    whole=False,
                )
            )
        begin = end + 1
    return found
