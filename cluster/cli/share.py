"""`brc push` and `brc pull`: runs at a URL, such as a model repository of Hugging Face."""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

import tyro

from cluster.cli.commands import here, newest_policy
from cluster.config import files as configurations
from cluster.config.schema import RUNS, Config
from cluster.errors import ConfigError
from cluster.preflight.validation import check, check_name
from cluster.run.card import CURVES, card, draw
from cluster.run.folder import existing_run, load_config, run_checkpoints
from cluster.run.identity import run_id
from cluster.run.registry import find_registry
from dashboards.sinks.records import read_evaluations
from learner.agents.catalogue import described
from replay.urls import open_url

Word = Annotated[str, tyro.conf.Positional]
CARD, CONFIG, EVALUATIONS, CHECKPOINTS = "README.md", "config.yaml", "eval.jsonl", "checkpoints"
HUB = "hf"
INSTALL = "pip install huggingface_hub"


def push(run: Word = "", to: Word = "", checkpoint: bool = True, runs_folder: str = RUNS) -> int:
    """Publish a run: a card with its results and curves, its options, its policy and its newest checkpoint.

    Args:
        run: the run's name.
        to: URL, such as hf://name/repository, s3://bucket/folder or a folder. Files that are there are replaced.
        checkpoint: whether its newest checkpoint goes with it, so that others can train on.
        runs_folder: where runs are.
    """
    path = existing_run(Path(runs_folder).absolute(), run)
    if not to:
        raise ConfigError(f"brc push {run} needs a URL, such as hf://name/repository")
    preset, config = load_config(path)
    plan = check(here(config))
    files, root = opened(to)
    message, manifest = newest_policy(path, plan)
    public = without_places(replace(config, name=run))
    rows = read_evaluations(path)
    with tempfile.TemporaryDirectory(prefix="brc-push-") as stage:
        place = Path(stage)
        has_policy = described(plan.networks).choice == "tanh_normal"
        text = card(run, preset, public, plan, manifest, rows, to, has_policy, checkpoint)
        (place / CARD).write_text(text)
        (place / CONFIG).write_text(configurations.dump(preset, public))
        if (path / EVALUATIONS).exists():
            shutil.copy(path / EVALUATIONS, place)
        if any(not row.is_random for row in rows):
            draw(rows, place / CURVES)
        if has_policy:
            from cluster.cli.export import export

            export(plan, message, manifest, place / "policy")
        if checkpoint:
            fetch_checkpoint(config, path, place / CHECKPOINTS)
        begin(to)
        for file in sorted(file for file in place.rglob("*") if file.is_file()):
            target = f"{root}/{file.relative_to(place).as_posix()}"
            files.makedirs(target.rpartition("/")[0], exist_ok=True)
            files.put_file(str(file), target)
            print(target)
    return 0


def pull(source: Word = "", name: Word = "", checkpoint: bool = False, runs_folder: str = RUNS) -> int:
    """Fetch a published run into the folder of runs: its card, options, evaluations and policy.

    Args:
        source: URL, such as hf://name/repository.
        name: the run's name here.
        checkpoint: fetch its checkpoint too, for brc eval, brc film and brc add-task. Reading a checkpoint can run code
            of whoever wrote it: fetch it only from people whom you trust.
        runs_folder: where runs are.
    """
    if not source or not name:
        raise ConfigError("brc pull needs a URL and a name, such as brc pull hf://name/repository dogs")
    check_name(Config(name=name))
    runs = Path(runs_folder).absolute()
    registry = find_registry(runs)
    if (runs / name).exists() or name in registry.names():
        raise ConfigError(f"{runs / name} is there already: choose another name")
    files, root = opened(source)
    if not files.exists(f"{root}/{CONFIG}"):
        raise ConfigError(f"{source} has no {CONFIG}: it is no run that brc push has published")
    part = runs / f".{name}.part"
    shutil.rmtree(part, ignore_errors=True)
    try:
        for found in sorted(files.find(root)):
            inner = PurePosixPath(found.removeprefix(root).lstrip("/"))
            if ".." in inner.parts or (inner.parts[0] == CHECKPOINTS and not checkpoint):
                continue
            target = part / inner
            target.parent.mkdir(parents=True, exist_ok=True)
            files.get_file(found, str(target))
        preset, config = load_config(part)
        config = replace(without_places(config), name=name, runs_folder=str(runs))
        text = configurations.dump(preset, config)
        (part / CONFIG).write_text(text)
        part.rename(runs / name)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    about = {"preset": preset, "config": text, "folder": str(runs / name), "id": run_id(runs / name)}
    registry.write(name, state="finished", reason=f"fetched from {source}", **about)
    print(runs / name)
    return 0


def opened(url: str) -> tuple[Any, str]:
    """Return the file system of a URL and the path in it. Raises ConfigError if it cannot be opened."""
    if url.startswith(f"{HUB}://") and importlib.util.find_spec("huggingface_hub") is None:
        raise ConfigError(f"{url} needs the package huggingface_hub: {INSTALL}")
    try:
        return open_url(url)
    except (ImportError, ValueError, OSError) as error:
        raise ConfigError(f"{url} cannot be opened: {error}") from error


def begin(url: str) -> None:
    """Make the repository of a Hugging Face URL if there is none."""
    if url.startswith(f"{HUB}://"):
        from huggingface_hub import HfApi

        repository = url.removeprefix(f"{HUB}://").partition("@")[0].split("/")[:2]
        HfApi().create_repo("/".join(repository), exist_ok=True)


def fetch_checkpoint(config: Config, path: Path, place: Path) -> None:
    """Copy a run's newest checkpoint, wherever it is, into a folder."""
    checkpoints = run_checkpoints(config, path)
    name = checkpoints.names()[-1]
    source = f"{checkpoints.root}/{name}"
    for found in checkpoints.files.find(source):
        target = place / name / found[found.rindex(name) + len(name) + 1 :]
        target.parent.mkdir(parents=True, exist_ok=True)
        checkpoints.files.get_file(found, str(target))


def without_places(config: Config) -> Config:
    """Return the configuration without folders and addresses of the machine where it was made."""
    default = Config()
    return replace(
        config,
        resume=False,
        origin="",
        runs_folder=default.runs_folder,
        ray_folder="",
        wandb="",
        learner=replace(config.learner, checkpoints=""),
        actors=replace(config.actors, runtime={}),
        replay=replace(config.replay, directory="", snapshots="", demonstrations=()),
        metrics=default.metrics,
    )
