"""Programs that enter a sandbox while they have pooled connections: from there on the shim makes no
system call that the program does not, and no connection leads past a rule."""

import pytest

from beside import PYTHON

# libseccomp makes the rule; it has more than one way to install it.
CONFINED = """
import errno, os, socket, sys
import seccomp

def connected():
    connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    connection.sendall(b"get nothing\\r\\n")
    assert connection.recv(16) == b"END\\r\\n"
    return connection

for _ in range(3):
    connected().close()
rules = seccomp.SyscallFilter(seccomp.ALLOW)
rules.add_rule(seccomp.ERRNO(errno.EPERM), "connect")
rules.set_attr(seccomp.Attr.CTL_TSYNC, int(sys.argv[2]))
rules.load()
try:
    connected()
    print("connected")
except OSError as error:
    print(errno.errorcode[error.errno])
"""


@pytest.mark.parametrize("kind", ["filter", "threads", "strict"])
def test_no_call_of_our_own(bench, built, kind):
    outcome = bench.pools_unnoticed([built("sandboxed.c"), kind, bench.server.port])
    assert outcome.code == 0
    assert "the program tries to enter a sandbox" in bench.log()


@pytest.mark.parametrize("all_threads", [0, 1])
def test_libseccomp(bench, all_threads):
    outcome = bench.pools_unnoticed([PYTHON, "-c", CONFINED, bench.server.port, all_threads])
    assert outcome.out == "EPERM\n"
    assert "discarded: SANDBOX" in bench.log()
