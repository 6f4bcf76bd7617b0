"""The start of a process: what it costs one that never speaks memcached, and what a process that has not
opened a socket yet must know all the same."""

import collections
import re
import subprocess

import pytest

from beside import LIBRARY, PYTHON, run
from support import preloaded

# What the constructor may do: where does the heap begin, and which process is this?
CALLS = {"brk": 1, "getpid": 1}


def calls(folder, library):
    """The system calls of `true` by name, but for those that load objects, and the files that it looks at."""
    trace = folder / "trace"
    subprocess.run(["strace", "-E", f"LD_PRELOAD={library}", "-o", trace, "true"], check=True,
                   env=preloaded(None, "11211", MCPOOL_STATS=str(folder), XDG_RUNTIME_DIR=str(folder)))
    lines = trace.read_text().splitlines()
    names = collections.Counter(re.match(r"\w*", line)[0] for line in lines)
    files = [re.search(r'"([^"]*)"', line)[1] for line in lines
             if re.match(r'(open|openat|access|stat|newfstatat|statx|readlink|execve)\b.*"/', line)]
    return names - collections.Counter({"mmap": 99, "mprotect": 99}), [file for file in files if file != library]


def test_start_looks_at_nothing(tmp_path):
    empty = str(tmp_path / "empty.so")
    subprocess.run(["gcc", "-shared", "-o", empty, "-x", "c", "/dev/null"], check=True)
    few, files = calls(tmp_path, empty)
    more, seen = calls(tmp_path, LIBRARY)
    assert seen == files
    assert more - few == collections.Counter(CALLS)


CYCLES = """
import socket
def cycles(count):
    for _ in range(count):
        with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as fd:
            fd.sendall(b"get a\\r\\n")
            assert fd.recv(64) == b"END\\r\\n"
"""


def settled(server):
    """Statistics that count all connections so far: the server counts one when it turns to it."""
    stats = server.stats()
    while server.connections_since(stats) != 0:
        stats = server.stats()
    return server.stats()


def connections(bench, program, **more):
    """How many connections the server gets of PROGRAM, which has no log that would need its settings."""
    before = settled(bench.server)
    done = run([PYTHON, "-c", "import ctypes, os, select, sys\n" + CYCLES + program, bench.server.port],
               preloaded(LIBRARY, bench.server.address, MCPOOL_STATS="off", MCPOOL_SHARE="off", **more))
    assert done.code == 0, done.err
    return bench.server.connections_since(before)


OVERWRITE = """
with open("/proc/self/stat") as file:
    start, end = map(int, file.read().rsplit(")", 1)[1].split()[47:49])
ctypes.memset(start, ord("t"), end - start - 1)
"""

LIBC = "libc = ctypes.CDLL(None, use_errno=True)\n"
WAIT = "assert os.waitpid(child, 0)[1] == 0\n"


@pytest.mark.parametrize("program, wanted", [
    ("cycles(5)", 1),
    (OVERWRITE + "cycles(5)", 1),
    ("os.environ['MCPOOL_DISABLE'] = 'on'; cycles(5)", 1),
    # A child of fork() has a pool of its own.
    ("child = os.fork(); cycles(5)\nif child == 0: os._exit(0)\n" + WAIT, 2),
    ("child = os.fork()\nif child == 0: cycles(5); os._exit(0)\n" + WAIT, 1),
    # Its parent wakes later, and so does its own child.
    ("""
for _ in range(2):
    child = os.fork()
    if child:
        assert os.waitpid(child, 0)[1] == 0
        break
cycles(5)
os._exit(0)
""", 3),
    # One that ran no handler has none.
    (LIBC + "child = libc._Fork(); cycles(5)\nif child == 0: os._exit(0)\n" + WAIT, 6),
    # The child of vfork() that becomes another program.
    ("import subprocess; subprocess.run(['true'], check=True); cycles(5)", 1),
    # A set that was made before the first socket is known.
    ("""
with select.epoll() as known:
    for _ in range(5):
        with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as fd:
            known.register(fd.fileno(), select.EPOLLIN)
            fd.sendall(b"get a\\r\\n")
            assert known.poll(5) == [(fd.fileno(), select.EPOLLIN)] and fd.recv(64) == b"END\\r\\n"
            known.unregister(fd.fileno())
""", 1),
])
def test_what_was_before_the_first_socket(bench, program, wanted):
    assert connections(bench, program) == wanted


def test_more_variables_than_can_be_kept(bench):
    assert connections(bench, "cycles(5)", **{f"MCPOOL_UNKNOWN_{i}": "x" * 300 for i in range(40)}) == 1


def test_disabled_when_it_wakes(bench):
    assert connections(bench, "cycles(5)", MCPOOL_DISABLE="on") == 5
