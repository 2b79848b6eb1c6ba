"""Tests of checkpoints and snapshots on an S3 server: they are written and pruned, and runs resume from them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from replay.store.locations import shared_folder
from tests.support import tiny
from tests.support.live import events, free_port, live, relatives, wait_for, wait_for_steps, wait_until


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Yield a URL on a new S3 server."""
    pytest.importorskip("moto")
    pytest.importorskip("s3fs")
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: answers(endpoint))
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/bucket", method="PUT"))
        yield "s3://bucket/runs"
    finally:
        server.kill()
        server.wait()


def answers(endpoint: str) -> bool:
    with suppress(OSError):
        return bool(urllib.request.urlopen(endpoint).status == 200)
    return False


def test_a_run_that_lost_its_machine_goes_on_from_s3(folder: Path, bucket: str) -> None:
    """After all processes and replay files are lost, networks and replay are those of the newest checkpoint."""
    import s3fs

    stores = [f"--learner.checkpoints={bucket}", f"--replay.snapshots={bucket}"]
    options = ["--steps=3000", "--checkpoint-interval=500", "--keep-checkpoints=2", *stores]
    with live(folder, "a", *options) as process:
        wait_for(process, lambda: len(events(folder, "a", "checkpoint")) > 2)
        wait_for_steps(process, folder, "a", 1600)
        for part in [*relatives(process.pid), psutil.Process(process.pid)]:
            part.kill()
        process.wait()
    name = (folder / "runs" / "a" / "id").read_text()
    shutil.rmtree(shared_folder() / name)
    store = s3fs.S3FileSystem()
    kept = {Path(path).parent.name for path in store.glob(f"{bucket}/{name}/checkpoints/*/manifest.json")}
    assert len(kept) == 2
    with live(folder, "a", *options, "--resume") as process:
        began = wait_for(
            process, lambda: [e for e in events(folder, "a", "shard_began") if e["origin"].startswith("snapshot")]
        )
        output, _ = process.communicate(timeout=180)
        assert process.returncode == 0, output
    assert began[0]["transitions"] >= 1500
    assert all(event["checkpoint"].startswith(bucket) for event in events(folder, "a", "checkpoint"))
    last = tiny.rows(folder, "a", "metrics")[-1]
    assert (last["env_steps"], last["updates"]) == (3000, (3000 - 300) // 4)
    assert not (folder / "runs" / "a" / "checkpoints").exists() and not (folder / "runs" / "a" / "replay").exists()


def test_a_bucket_that_is_not_there_is_refused(folder: Path, bucket: str) -> None:
    done = subprocess.run(
        tiny.train_command(folder, "a", "--learner.checkpoints=s3://nobody/runs"),
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert done.returncode == 2 and "--learner.checkpoints s3://nobody/runs: cannot write there" in done.stderr
