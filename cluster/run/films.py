"""Films of a run's tasks with the policy of its newest checkpoint, at its end and by `brc film`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from actors.film import Filmed, film_apart
from cluster.plan.plan import Plan
from cluster.run.folder import RunFolder
from replay.policy_store import PolicyMessage

FOLDER = "films"
EVERY = 4  # steps between two frames


def film_tasks(
    plan: Plan, names: Sequence[str], message: PolicyMessage, every: int, folder: Path, env_steps: int
) -> Iterator[tuple[str, Path, Filmed]]:
    """Film an episode of each of these tasks into the folder; yield task, file and result of each."""
    folder.mkdir(parents=True, exist_ok=True)
    known = [task.name for task in plan.tasks]
    for name in names:
        file = folder / f"{name.replace('/', '-').replace(':', '-')}-{env_steps:012d}.gif"
        yield name, file, film_apart(plan.evaluator(), known.index(name), message, every, file)


def film_at_end(plan: Plan, folder: RunFolder, say: Callable[[str], None]) -> None:
    """Film the first tasks of a run that is over, as many as are configured; Ctrl-C ends it. What cannot be filmed is a
    sentence: a film never makes a run fail."""
    names = [task.name for task in plan.tasks[: plan.config.evaluation.films]]
    if not names:
        return
    try:
        from learner.state.dcp import load_policy

        newest = folder.checkpoints.names()[-1]
        steps = int(folder.checkpoints.manifest(newest)["env_steps"])
        message = load_policy(plan.networks, folder.checkpoints.url(newest))
        troubles: dict[str, list[str]] = {}
        for name, file, filmed in film_tasks(plan, names, message, EVERY, folder.path / FOLDER, steps):
            if filmed.trouble:
                troubles.setdefault(filmed.trouble, []).append(name)
            else:
                say(f"film of {name}, return {filmed.episode_return:.1f}: {file}")
        for trouble, without in troubles.items():
            say(f"no film of {', '.join(without)}: {trouble}")
    except KeyboardInterrupt:
        say("no more films")
    except Exception as error:  # a full disk, a store that is away, or a library that cannot be loaded
        say(f"no films: {type(error).__name__}: {error}")
