"""Descriptors in flight are counted for all processes of a user: a family leaves room for the other programs of its
user, and for its own."""

import contextlib
import os
import subprocess
import time

import pytest

from beside import LIBRARY, PYTHON, die_with_parent, preloaded
from kin import BENCH, SHARES, USER, VALUES, Program, run
from support import Memcached, in_queues

# What root passes is not counted.
pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")

AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups"]
PASSING = os.path.join(BENCH, "family", "passing.py")
# A sixteenth of 1,024.
MOST = 64

BUSY = """
for _ in range(2):
    in_child(lambda: burst(40))
burst(40)
say("quiet")
while not select.select([0], [], [], 0.5)[0]:
    pass
"""

# Sends COUNT of its own descriptors and takes them, twice.
OWN = """
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
def pass_many(count):
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(16)]
    null = os.open("/dev/null", os.O_RDONLY)
    failed = []
    for number in range(count):
        try:
            socket.send_fds(pairs[number % 16][0], [b"."], [null], socket.MSG_DONTWAIT)
        except OSError as error:
            failed.append((number, error.errno))
    for number in range(count):
        try:
            for fd in socket.recv_fds(pairs[number % 16][1], 1, 1, socket.MSG_DONTWAIT)[1]:
                os.close(fd)
        except OSError as error:
            failed.append((number, error.errno))
    for pair in pairs:
        pair[0].close(); pair[1].close()
    os.close(null)
    return failed
for _ in range(2):
    in_child(lambda: burst(40))
burst(40)
time.sleep(1.5)
say(pass_many(1000))
in_child(lambda: burst(40), lambda: say(pass_many(1000)))
in_child(look_up)
look_up()
"""


@pytest.fixture
def server():
    with Memcached("-c", "4096") as running:
        running.store(VALUES)
        yield running


@pytest.mark.parametrize("families, counted", [(1, True), (4, True), (16, True), (1, False), (4, False)])
def test_another_program_of_the_user_is_never_refused(server, stats, families, counted):
    """A program that has 900 of its 1,024 descriptors in flight, while the queues of 1, 4 and 16 families are as full
    as they get, and also where no directory of counters tells how many families there are."""
    more = stats if counted else {"MCPOOL_STATS": "off"}
    with contextlib.ExitStack() as stack:
        programs = [stack.enter_context(Program(BUSY, server, before=AS_USER, **more)) for _ in range(families)]
        for program in programs:
            assert program.hear() == "quiet"
        # Those that came first learn of the others.
        deadline = time.monotonic() + 15
        while (queued := in_queues(server.port)) > MOST and time.monotonic() < deadline:
            time.sleep(0.1)
        failed, passed = subprocess.run([*AS_USER, PYTHON, PASSING, "900", "2"], stdout=subprocess.PIPE, text=True,
                                        check=True, timeout=60, env=preloaded(None, None),
                                        preexec_fn=die_with_parent).stdout.split()
        assert (failed, queued <= MOST) == ("0", True), (queued, passed)
        assert int(passed) >= 900
        if SHARES and counted and families == 1:
            assert queued > 0
        for program in programs:
            program.tell()
            program.end()


def test_a_member_passes_as_many_as_without_the_library(server, stats):
    """A program with the library that has 1,000 of its 1,024 descriptors in flight: what is queued makes way."""
    plain = run(OWN, server, None, before=AS_USER, **stats)
    assert plain == "[]\n[]\n"
    assert run(OWN, server, LIBRARY, before=AS_USER, **stats) == plain
