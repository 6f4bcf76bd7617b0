"""Descriptors in flight are counted for all processes of a user: families leave room for others."""

import contextlib
import os
import subprocess
import tempfile

from lib.cases import PACE, Row, Server, at_most, rest
from support import PYTHON, die_with_parent, in_queues, preloaded

from family.cases import case

HERE = os.path.dirname(os.path.abspath(__file__))
# A user that has nothing else: what root passes is not counted.
USER = 61234
AS_USER = ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--clear-groups", "--pdeathsig", "KILL"]
PROCESSES, WIDTH = 2, 48
# How many descriptors the other program has in flight, of the 1,024 that it may have.
IN_FLIGHT = 900
SECONDS = 3
# A sixteenth of 1,024, for all families together.
QUEUED = 64


@contextlib.contextmanager
def quiet_family(library, server, directory):
    environment = preloaded(library, server.address, MCPOOL_STATS=directory)
    host, port = server.address.split(":")
    command = [*AS_USER, PYTHON, os.path.join(HERE, "member.py"), host, port, str(PROCESSES), str(WIDTH)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                          preexec_fn=die_with_parent) as family:
        try:
            if family.stdout.readline() != "quiet\n":
                raise RuntimeError("a family has failed")
            yield
        finally:
            family.kill()


def passing(library, families):
    with tempfile.TemporaryDirectory() as directory, Server("-c", "4096") as server, contextlib.ExitStack() as stack:
        os.chown(directory, USER, USER)
        for _ in range(families):
            stack.enter_context(quiet_family(library, server, directory))
        rest(2)
        queued = in_queues(server.port)
        said = subprocess.run([*AS_USER, PYTHON, os.path.join(HERE, "passing.py"), str(IN_FLIGHT), str(SECONDS * PACE)],
                              stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout
        failed, passed = map(int, said.split())
        return queued, failed, passed


for count in (1, 4, 16):
    case(f"passing-{count}", Row("connections in queues", f"1 to {QUEUED}", lambda shim, plain: 1 <= shim <= QUEUED),
         Row(f"another program, with {IN_FLIGHT} descriptors in flight: could not pass", *at_most(0)), Row("passed"),
         alone=True)(lambda library, count=count: passing(library, count))
