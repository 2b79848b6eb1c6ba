"""Tests of runs without a reader: closed pipes and terminals, full disks and closed output do not stop them."""

from __future__ import annotations

import fcntl
import io
import os
import pty
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from dashboards.sinks.console import Console
from dashboards.sinks.view import LEFT_OUT, NOBODY_READS, OutputLost, Result, View
from tests.support import tiny
from tests.support.live import PATIENCE_S, assert_whole, events, relatives, wait_for, wait_for_steps

SERIAL = ["--execution=serial", "--steps=900"]
DISTRIBUTED = ["--steps=2500"]
EXECUTIONS = [pytest.param(SERIAL, id="serial"), pytest.param(DISTRIBUTED, id="distributed")]


def shell(line: str) -> subprocess.CompletedProcess[str]:
    """Run a command line of bash. Return its output, with the exit code of its first command."""
    command = ["bash", "-c", f"{line}; exit ${{PIPESTATUS[0]}}"]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=PATIENCE_S, env=tiny.environment(), check=False
    )


@pytest.mark.parametrize("options", EXECUTIONS)
def test_a_run_whose_reader_ends_goes_on_to_its_end(folder: Path, options: list[str]) -> None:
    done = shell(f"{shlex.join(tiny.train_command(folder, 'a', *options))} | head -n 3")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 3 and not done.stderr
    assert_whole(folder, "a", int(options[-1].partition("=")[2]))
    (lost,) = events(folder, "a", "console_lost")
    assert "Broken pipe" in lost["reason"]


@pytest.mark.parametrize("options", EXECUTIONS)
def test_a_run_whose_reader_rests_goes_on_to_its_end(folder: Path, options: list[str]) -> None:
    ours, its = os.pipe()
    fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, 4096)
    os.write(its, b"x" * 4096)  # the pipe is full
    command = tiny.train_command(folder, "a", *options)
    done = subprocess.run(command, stdout=its, stderr=its, timeout=PATIENCE_S, env=tiny.environment(), check=False)
    os.close(its)
    with os.fdopen(ours, "rb") as pipe:
        assert pipe.read() == b"x" * 4096 and done.returncode == 0
    assert_whole(folder, "a", int(options[-1].partition("=")[2]))
    assert not events(folder, "a", "console_lost")


def test_a_run_whose_terminal_is_held_goes_on_to_its_end(folder: Path) -> None:
    with in_terminal(folder, *SERIAL, ignores_hang_up=False) as (process, terminal):
        os.write(terminal, b"\x13")  # Ctrl-S
        assert process.wait(PATIENCE_S) == 0
        os.close(terminal)
    assert_whole(folder, "a", 900)


@pytest.mark.parametrize(
    ("redirected", "reason"),
    [
        ("> /dev/full 2>&1", "No space left on device"),
        ("<&- >&- 2>&-", "it was closed when this began"),
        ("2>&1 | true", "Broken pipe"),
    ],
)
def test_a_run_that_cannot_print_goes_on_to_its_end(folder: Path, redirected: str, reason: str) -> None:
    done = shell(f"{shlex.join(tiny.train_command(folder, 'a', *SERIAL))} {redirected}")
    assert done.returncode == 0 and not done.stdout + done.stderr
    assert_whole(folder, "a", 900)
    (lost,) = events(folder, "a", "console_lost")
    assert reason in lost["reason"]


def hearing(hang_ups: signal.Handlers, command: list[str], *first: str) -> list[str]:
    """Return a command with this handler of SIGHUP, whatever handler the tests have. `first` are lines of Python."""
    lines = ["import os, signal, sys", *first, f"signal.signal(signal.SIGHUP, {int(hang_ups)})"]
    return [sys.executable, "-c", "; ".join([*lines, "os.execv(sys.argv[1], sys.argv[1:])"]), *command]


@contextmanager
def in_terminal(folder: Path, *options: str, ignores_hang_up: bool) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Yield a run in the foreground of a new terminal, and the terminal's other end, which the caller closes."""
    ours, its = pty.openpty()
    takes_it = ["import fcntl, termios", "os.setsid()", "fcntl.ioctl(0, termios.TIOCSCTTY, 0)"]
    heard = signal.SIG_IGN if ignores_hang_up else signal.SIG_DFL
    command = hearing(heard, tiny.train_command(folder, "a", *options), *takes_it)
    process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, text=True, env=tiny.environment())
    os.close(its)
    try:
        yield process, ours
    finally:
        for left in [*relatives(process.pid), *([] if process.poll() is not None else [psutil.Process(process.pid)])]:
            left.kill()
        process.wait()


def closed_when_it_trains(folder: Path, process: subprocess.Popen[str], terminal: int) -> None:
    """Read the terminal, as a terminal window does, until the run trains. Then close it."""
    os.set_blocking(terminal, False)

    def trains() -> bool:
        with suppress(OSError):  # there is nothing to read now
            os.read(terminal, 1 << 16)
        return any(row["updates"] > 0 for row in tiny.rows(folder, "a", "metrics"))

    wait_for(process, trains)
    os.close(terminal)


@pytest.mark.parametrize("options", [["--execution=serial"], []], ids=["serial", "distributed"])
def test_a_closed_terminal_stops_a_run_cleanly(folder: Path, options: list[str]) -> None:
    """The terminal sends SIGHUP to all its processes. Ray's processes live until the checkpoint is written."""
    with in_terminal(folder, *options, "--steps=1000000", ignores_hang_up=False) as (process, terminal):
        closed_when_it_trains(folder, process, terminal)
        assert process.wait(PATIENCE_S) == 130
    (stopped,) = events(folder, "a", "stopped")
    (checkpoint,) = events(folder, "a", "checkpoint")
    assert not events(folder, "a", "failed") and not events(folder, "a", "learner_died")
    assert tiny.manifest(folder, "a")["env_steps"] == checkpoint["env_steps"] > 300
    assert (folder / "runs" / "a" / "registry" / "state").read_text() == "stopped", stopped


@pytest.mark.parametrize(
    "options",
    [["--execution=serial", "--steps=4000"], ["--steps=6000"]],
    ids=["serial", "distributed"],
)
def test_a_run_that_ignores_hang_ups_outlives_its_terminal(folder: Path, options: list[str]) -> None:
    with in_terminal(folder, *options, ignores_hang_up=True) as (process, terminal):
        closed_when_it_trains(folder, process, terminal)
        assert process.wait(PATIENCE_S) == 0
    assert_whole(folder, "a", int(options[-1].partition("=")[2]))
    (lost,) = events(folder, "a", "console_lost")
    assert "Input/output error" in lost["reason"]


def test_several_hang_ups_are_one_request_and_a_second_other_signal_ends_at_once(folder: Path) -> None:
    command = tiny.train_command(folder, "a", "--execution=serial", "--steps=1000000")
    command = hearing(signal.SIG_DFL, command)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, text=True, env=tiny.environment())
    try:
        wait_for_steps(process, folder, "a", 400)
        for number in (signal.SIGHUP, signal.SIGHUP, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        assert process.wait(PATIENCE_S) == 130
    finally:
        process.kill()
    assert events(folder, "a", "checkpoint") and events(folder, "a", "stopped")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("v")
    done = tiny.train(path, "a", "--execution=serial", "--steps=400")
    assert done.returncode == 0, done.stdout + done.stderr
    return path / "runs"


COMMANDS = ["status", "status a", "eval a --episodes 1", "export a", "report a"]
OTHERS = ["--help", "presets", "suites", "suites dmc-dogs", "status --help", "train quickstart --help"]


@pytest.mark.parametrize("words", [*COMMANDS, *OTHERS])
def test_a_command_that_nobody_reads_ends_quietly(trained: Path, words: str) -> None:
    command = tiny.command([*words.split(), *([f"--runs-folder={trained}"] if words in COMMANDS else [])])
    done = shell(f"{shlex.join(command)} | true")
    assert done.returncode == (0 if words.startswith("train") else NOBODY_READS) and not done.stderr


@pytest.mark.parametrize("seconds", [1.5, 3.0, 5.0])
def test_ctrl_c_ends_a_command_without_a_word(trained: Path, seconds: float) -> None:
    command = tiny.command(["eval", "a", "--episodes=1000", f"--runs-folder={trained}"])
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    process = subprocess.Popen(command, text=True, env=tiny.environment(), **pipes)
    try:
        wait_for(process, lambda: psutil.Process(process.pid).cpu_times().user > seconds)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=PATIENCE_S)
        assert process.returncode in (130, -signal.SIGINT) and not said, "a shell says 130 of both"
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("words", ["status", "presets"])
def test_a_command_whose_output_has_no_room_says_so(trained: Path, words: str) -> None:
    done = shell(f"{shlex.join(tiny.command([words]))} > /dev/full")
    assert done.returncode == 1
    assert done.stderr == "standard output cannot be written: [Errno 28] No space left on device\n"


def test_bad_input_has_its_exit_code_wherever_it_is_told() -> None:
    for redirected in ("2> /dev/full", "2>&-", "2>&1 | true"):
        assert shell(f"{shlex.join(tiny.command(['status', 'nosuch']))} {redirected}").returncode == 2


class Failing(io.StringIO):
    """A stream that counts writes, and raises `error` in each unless it is None."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self.error = error
        self.tried = 0

    def write(self, text: str) -> int:
        self.tried += 1
        if self.error is not None:
            raise self.error
        return super().write(text)


@pytest.mark.parametrize("error", [BrokenPipeError(32, "Broken pipe"), OSError(5, "EIO"), ValueError("closed file")])
def test_a_view_is_silent_from_its_first_failure_on(error: Exception) -> None:
    stream = Failing()
    view = View(stream)
    with Console(["dmc/cartpole-swingup"], 100, view) as console:
        console.say("first")
        assert not console.lost and stream.getvalue() == "first\n"
        stream.error = error
        console.say("second")
        tried = stream.tried
        stream.error = None  # the disk has room again, but the output would have a gap
        console.say("third")
    assert console.lost == str(error) and stream.tried == tried and stream.getvalue() == "first\n"


def small_pipe() -> tuple[int, int]:
    ours, its = os.pipe()
    fcntl.fcntl(its, fcntl.F_SETPIPE_SZ, 4096)
    return ours, its


def small_socket() -> tuple[int, int]:
    """Return both ends of a socket, which is what ssh gives to a command without a terminal."""
    ours, its = socket.socketpair()
    its.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return ours.detach(), its.detach()


@pytest.mark.parametrize("ends", [small_pipe, small_socket, os.openpty])
def test_a_view_leaves_out_what_its_reader_has_no_room_for(ends: Callable[[], tuple[int, int]]) -> None:
    ours, its = ends()
    with os.fdopen(its, "w") as stream:
        view = View(stream)
        for _ in range(1000):  # more than any of the three holds
            view.write("a" * 1000)
        assert view.leaves_out and os.get_blocking(its), "other processes share it"
        os.set_blocking(ours, False)
        held = b""
        with suppress(BlockingIOError):
            while True:
                held += os.read(ours, 65536)
        assert set(held) == set(b"a") and len(held) < 1000 * 1000
        view.write("b")
        said = b""
        while not said.endswith(b"b"):
            with suppress(BlockingIOError):
                said += os.read(ours, 65536)
        assert said.replace(b"\r", b"") == LEFT_OUT + b"b" and not view.lost
    os.close(ours)


def test_a_result_is_missed_once() -> None:
    result = Result(Failing(OSError(28, "No space left on device")))
    with pytest.raises(OutputLost):
        result.write("a")
    assert result.write("b") == 1


def test_what_an_encoding_lacks_is_written_as_an_escape() -> None:
    raw = io.BytesIO()
    view = View(io.TextIOWrapper(raw, encoding="ascii"))
    view.write("é")
    view.flush()
    assert raw.getvalue() == b"\\xe9" and not view.lost
