"""No user ever gets another one's bytes: greenlets give up at random against slow servers."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
from support import LIBRARY, PYTHON, Memcached, Process, free_port, preloaded

# More of them in a night; see tests/run.py.
OPERATIONS = int(os.environ.get("ORACLE_OPERATIONS", "2500"))
KEYS = 1000
SEEDS = (1, 2, 3, 4)


class SlowServer(Process):
    """slow_server.py, which looks like a memcached."""

    def __init__(self, seed):
        port = free_port()
        super().__init__([PYTHON, os.path.join(HERE, "slow_server.py"), str(port), str(seed)], port)

    address = Memcached.address
    stats = Memcached.stats
    connections_since = Memcached.connections_since


def run(script, server, *arguments, environment):
    """Runs SCRIPT against SERVER and returns what it saw."""
    result = subprocess.run([PYTHON, os.path.join(HERE, script), server.address,
                             *map(str, arguments)], env=environment, timeout=240 + OPERATIONS / 10,
                            stdout=subprocess.PIPE, check=True)
    return json.loads(result.stdout)


def check(seen, opened):
    """No mismatch, and the test was a real one: much was given up, answered and reused."""
    print(dict(seen, opened=opened))
    assert seen["mismatches"] == 0
    assert seen["operations"] >= OPERATIONS and seen["given_up"] > 10
    assert seen["right"] > OPERATIONS / 2
    # A greenlet asks for two and a half keys on average, on a connection of its own. When it gives up, the
    # next one is another.
    assert opened < seen["operations"] / 2.5 / 2 + seen["given_up"]


@pytest.fixture(scope="module")
def naive(tmp_path_factory):
    """The pool that verifies nothing, compiled."""
    library = tmp_path_factory.mktemp("naive") / "naive.so"
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-O2", "-o", library,
                    os.path.join(HERE, "naive_pool.c"), "-ldl"], check=True)
    return str(library)


@pytest.mark.parametrize("seed", SEEDS)
def test_given_up_greenlets_on_a_slow_server(seed):
    with SlowServer(seed) as server:
        before = server.stats()
        seen = run("oracle.py", server, seed, OPERATIONS, KEYS,
                   environment=preloaded(LIBRARY, server.address))
        opened = server.connections_since(before)
    check(seen, opened)


def stop_and_go(server, until):
    while not until.is_set():
        server.pause()
        time.sleep(0.06)
        server.go_on()
        time.sleep(0.03)


def test_given_up_greenlets_on_a_memcached_that_stands_still():
    with Memcached() as server:
        server.store({f"key-{number}": f"value-of-key-{number}" for number in range(KEYS)})
        before = server.stats()
        over = threading.Event()
        stopper = threading.Thread(target=stop_and_go, args=(server, over))
        stopper.start()
        try:
            seen = run("oracle.py", server, 5, OPERATIONS, KEYS,
                       environment=preloaded(LIBRARY, server.address))
        finally:
            over.set()
            stopper.join()
        opened = server.connections_since(before)
    check(seen, opened)


def test_greenlets_killed_while_the_server_stalls():
    with Memcached() as server:
        seen = run("stall.py", server, server.process.pid,
                   environment=preloaded(LIBRARY, server.address))
    assert seen == {"answered": 20, "wrong": 0}


@pytest.mark.parametrize("library", [LIBRARY, None], ids=["with", "without"])
def test_connections_are_found_again_when_the_server_recovers(library):
    """Outstanding replies are read, and the stall is not followed by a storm of new connections."""
    rounds, greenlets = 6, 20
    with Memcached() as server:
        server.store({f"key-{number}": f"value-of-key-{number}" for number in range(KEYS)})
        before = server.stats()
        seen = run("recover.py", server, server.process.pid, rounds,
                   environment=preloaded(library, server.address))
        opened = server.connections_since(before)
    print(dict(seen, opened=opened))
    assert seen["wrong"] == 0 and seen["answered"] >= rounds * greenlets
    assert seen["given_up"] == rounds * greenlets
    if library:
        assert opened <= 1.5 * greenlets
    else:
        assert opened == seen["operations"] == 2 * rounds * greenlets


def test_a_naive_pool_fails_when_the_server_stalls(naive):
    """The oracle can fail: the same program under a pool that asks the kernel only."""
    with Memcached() as server:
        seen = run("stall.py", server, server.process.pid,
                   environment=preloaded(None, None, LD_PRELOAD=naive,
                                         NAIVE_PORT=str(server.port)))
    assert seen["wrong"] > 0


def test_a_naive_pool_fails_on_a_slow_server(naive):
    """With so few operations that some greenlet always goes on: one that was given the bytes of
    another may wait for ever."""
    with SlowServer(1) as server:
        seen = run("oracle.py", server, 1, 2500, KEYS, 5,
                   environment=preloaded(None, None, LD_PRELOAD=naive,
                                         NAIVE_PORT=str(server.port)))
    assert seen["mismatches"] > 0
