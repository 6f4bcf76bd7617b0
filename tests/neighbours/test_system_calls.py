"""Which system calls a program makes that opens a connection for every get, and gets a pooled one.
"""

import re

from beside import LIBRARY, PYTHON, run

# Each turn is told from the next by a call that nobody else makes.
PROGRAM = """
import os, socket, sys
port = int(sys.argv[1])
for _ in range(6):
    os.getpriority(os.PRIO_PROCESS, 0)
    with socket.socket() as fd:
        fd.connect(("127.0.0.1", port))
        fd.sendall(b"get a\\r\\n")
        assert fd.recv(64) == b"END\\r\\n"
os.getpriority(os.PRIO_PROCESS, 0)
"""

# In this order; those of the get itself are in the middle.
HIT = ["fcntl F_DUPFD_CLOEXEC", "getsockopt TCP_INFO", "dup3", "sendto", "recvfrom", "close"]

# Whether the address and the request can be read is asked where they are not on the page of the
# stack that is in use: at most once for each.
LOOKS = 2


def named(line):
    """What the system call is and, of those that do many things, what it does."""
    call, arguments = re.match(r"(?:\d+ +)?(\w+)\((.*)", line).groups()
    words = [word for word in ("F_DUPFD_CLOEXEC", "TCP_INFO") if word in arguments]
    return " ".join([call, *words])


def turns(trace):
    calls = [named(line) for line in trace.splitlines() if re.match(r"(?:\d+ +)?\w+\(", line)]
    marks = [at for at, call in enumerate(calls) if call == "getpriority"]
    return [calls[mark + 1:following] for mark, following in zip(marks, marks[1:])]


def test_a_hit_makes_no_other_system_call(bench):
    trace = bench.folder / "trace"
    environment = {**bench.environment(LIBRARY), "MCPOOL_LOG": "", "MCPOOL_STATS": "off"}
    done = run(["strace", "-f", "-E", f"LD_PRELOAD={environment.pop('LD_PRELOAD')}", "-o", trace,
                PYTHON, "-c", PROGRAM, bench.server.port], environment)
    assert done.code == 0, done.err
    # The first opens the connection, the second makes the spare.
    for turn in turns(trace.read_text())[2:]:
        assert [call for call in turn if call != "rt_sigprocmask"] == HIT
        assert turn.count("rt_sigprocmask") <= LOOKS
