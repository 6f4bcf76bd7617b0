"""A process that goes quiet after a burst gives its idle connections back to the server."""

import glob
import json
import os
import subprocess
import time

import pytest
from support import LIBRARY, PYTHON, die_with_parent, preloaded

HERE = os.path.dirname(os.path.abspath(__file__))
COMMAND = os.path.join(os.path.dirname(LIBRARY), "mcpool")
ESTABLISHED = "01"


def held(pid, port):
    """How many connections to PORT the process has."""
    inodes = set()
    for path in glob.glob(f"/proc/{pid}/fd/*"):
        try:
            inodes.add(os.readlink(path))
        except OSError:
            pass
    with open("/proc/net/tcp") as table:
        rows = [line.split() for line in table][1:]
    return sum(row[3] == ESTABLISHED and int(row[2].split(":")[1], 16) == port
               and f"socket:[{row[9]}]" in inodes for row in rows)


def wait_for(most, process, port, seconds):
    """How many are held once it is MOST or fewer, or when the time is over."""
    end = time.monotonic() + seconds
    while held(process.pid, port) > most and time.monotonic() < end:
        time.sleep(0.1)
    return held(process.pid, port)


@pytest.fixture
def quiet(server):
    """A function that starts a process, which is quiet when it returns."""
    started = []

    def start(how, *before, **settings):
        process = subprocess.Popen(
            [PYTHON, f"{HERE}/quiet.py", str(server.port), how, *before], stdout=subprocess.PIPE,
            text=True, preexec_fn=die_with_parent,
            env=preloaded(LIBRARY, str(server.port), **settings))
        started.append(process)
        assert process.stdout.readline() == "quiet\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_what_was_not_needed_goes_then_the_last_one(quiet, server):
    ways = "epoll_wait", "poll", "select"
    processes = [quiet(how, MCPOOL_IDLE_TIMEOUT="20s") for how in ways]
    assert all(held(process.pid, server.port) == 16 for process in processes)
    after_burst = [wait_for(1, process, server.port, 20) for process in processes]
    assert after_burst == [1, 1, 1]
    assert [wait_for(0, process, server.port, 20) for process in processes] == [0, 0, 0]


def test_pieces_of_a_wait_are_counted(quiet, server, tmp_path):
    process = quiet("poll", MCPOOL_STATS=str(tmp_path))
    assert wait_for(1, process, server.port, 20) == 1
    time.sleep(1.5)    # the counters are written
    shown = subprocess.run([COMMAND, "stat", "--json", str(process.pid)], check=True, capture_output=True, text=True,
                           env=preloaded(None, None, MCPOOL_STATS=str(tmp_path))).stdout
    [counted] = json.loads(shown)["processes"][0]["servers"]
    assert 1 <= counted["pieces"] <= 20


def test_before_accept_all_but_one_go(quiet, server):
    process = quiet("accept")
    assert wait_for(1, process, server.port, 5) == 1


@pytest.mark.parametrize("how, most", [("accept", 1), ("sleep", 0)])
def test_a_child_that_has_ended_changes_nothing(quiet, server, how, most):
    """Python's subprocess.run() calls vfork()."""
    process = quiet(how, "true")
    assert wait_for(most, process, server.port, 5) == most


def test_a_dry_run_holds_nothing(quiet, server):
    process = quiet("epoll_wait", MCPOOL_DRY_RUN="on")
    assert held(process.pid, server.port) == 0


@pytest.mark.parametrize("how", ["sleep", "libc_sleep", "usleep"])
def test_before_a_long_sleep_all_go(quiet, server, how):
    process = quiet(how)
    assert wait_for(0, process, server.port, 5) == 0


def test_before_a_short_sleep_all_stay(quiet, server):
    process = quiet("short_sleep")
    time.sleep(2)
    assert held(process.pid, server.port) == 16
