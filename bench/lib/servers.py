"""Web servers of tests/clients, and load that checks its answers."""

import collections
import concurrent.futures
import contextlib
import glob
import os
import tempfile

from lib.cases import Missing, Wrong
from lib.machine import run_seconds
from lib.wrk import wrk
from matrix import APPS, PROGRAMS, Running, is_installed
from soak import Scenario
from support import Process, free_port, preloaded


def children(pid):
    """Those of PID. The kernel's own list of them may lack one while another ends."""
    found = set()
    for path in glob.glob("/proc/[0-9]*/stat"):
        with contextlib.suppress(OSError), open(path, encoding="utf-8", errors="replace") as file:
            before, _, after = file.read().rpartition(")")
            if int(after.split()[1]) == pid:
                found.add(int(before.split()[0]))
    return found


@contextlib.contextmanager
def serving(kind, library, address, **more):
    """A server and the port at which it is asked. KIND begins with its command, its packages and what is in
    front of it."""
    command, needs, front, *_ = kind
    if missing := [package for package in needs if not is_installed(package)]:
        raise Missing("not installed: " + " ".join(missing))
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        running = Running(directory, free_port(), address)
        environment = preloaded(library, address, APP_SERVER=address, APP_CLIENT="text",
                                PYTHONPATH=os.pathsep.join((APPS, PROGRAMS)), **{"MCPOOL_STATS": directory, **more})
        server = stack.enter_context(Process(command(running), running.port, environment, cwd=APPS))
        port = running.port
        if front:
            port = free_port()
            stack.enter_context(Process(front(Running(directory, port, address, running.port)), port))
        yield server, port


def checked_load(port, requests, concurrency):
    """How many of them failed. A page without a value is a failure; one with another value is wrong."""
    scenario = Scenario("load", port, ())
    with concurrent.futures.ThreadPoolExecutor(concurrency) as threads:
        outcomes = collections.Counter(threads.map(
            lambda number: scenario.ask(f"key-{number}", lambda: False), range(requests)))
    if outcomes["wrong"]:
        raise Wrong(f"{outcomes['wrong']} wrong answers")
    return outcomes["failed"]


def loaded(pid, port, connections):
    """The requests that PID answered to as many CONNECTIONS as asked all the time, and the processor seconds it and
    its children ran for them."""
    before = run_seconds(pid)
    said = wrk(port, connections, 1)
    if said["failed"]:
        raise Wrong(f"{said['failed']} requests were not answered right")
    return said["requests"], run_seconds(pid) - before
