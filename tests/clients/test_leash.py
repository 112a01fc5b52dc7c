"""What ends a child when its parent is killed, the way of Linux and the way of other systems."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from rejoin.client.commands.children import LEASH

WITHIN = 15
WAYS = [[], ["--watch"]]

# Starts the leash as `rejoin dev` does, says whom it started, and waits to be killed.
_PARENT = """
import os, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-I", "-S", sys.argv[1], str(os.getpid()), "15",
                          *sys.argv[2:]], start_new_session=True)
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("way", WAYS)
def test_a_killed_parent_takes_its_child_with_it(way: list[str], tmp_path: Path) -> None:
    told = tmp_path / "pid"
    command = ["/bin/sh", "-c", f'echo $$ > "{told}.new"; mv "{told}.new" "{told}"; exec sleep 60']
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(LEASH), *way, *command], stdout=subprocess.PIPE
    )
    with parent:
        assert parent.stdout is not None
        leash = psutil.Process(int(parent.stdout.readline()))
        end = time.monotonic() + WITHIN
        while not told.exists():
            assert time.monotonic() < end
            time.sleep(0.02)
        child = psutil.Process(int(told.read_text()))
        parent.kill()
        _, alive = psutil.wait_procs([leash, child], timeout=WITHIN)
    assert alive == []


@pytest.mark.parametrize("way", WAYS)
def test_the_exit_code_and_the_output_are_the_commands(way: list[str]) -> None:
    done = run(way, "/bin/sh", "-c", "echo hello; exit 7")
    assert (done.returncode, done.stdout) == (7, b"hello\n")


@pytest.mark.parametrize("way", WAYS)
def test_a_signal_to_the_group_ends_the_command(way: list[str]) -> None:
    process = subprocess.Popen(
        leashed(
            way, "/bin/sh", "-c", 'trap "exit 9" TERM; echo ready; while :; do sleep 0.1; done'
        ),
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        os.killpg(process.pid, signal.SIGTERM)
        assert process.wait(WITHIN) == 9


def test_a_command_started_too_late_is_not_run() -> None:
    other = str(os.getppid())
    done = subprocess.run(
        [sys.executable, "-I", "-S", LEASH, other, "15", "/bin/echo", "ran"],
        capture_output=True,
        timeout=WITHIN,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, b"")


def test_a_command_that_is_not_there_is_said() -> None:
    done = run([], "/nonexistent/redis-server")
    assert done.returncode == 127
    assert (
        done.stderr
        == b"rejoin: cannot start /nonexistent/redis-server: No such file or directory\n"
    )


def leashed(way: list[str], *command: str) -> list[str]:
    return [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), "15", *way, *command]


def run(way: list[str], *command: str) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(leashed(way, *command), capture_output=True, timeout=WITHIN, check=False)
