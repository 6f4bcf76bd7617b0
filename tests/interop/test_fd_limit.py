"""How many fds of its limit a program can use for files: open() does not see that others are needed."""
import subprocess
import sys

import pytest

from support import LIBRARY, preloaded

LIMIT = 1024
CODE = f"""
import os, resource, socket, sys
resource.setrlimit(resource.RLIMIT_NOFILE, ({LIMIT}, {LIMIT}))
address, n = ("127.0.0.1", int(sys.argv[1])), int(sys.argv[2])

def connect():
    made = []
    for _ in range(n):
        one = socket.create_connection(address)
        one.sendall(b"version\\r\\n")
        assert one.recv(100).startswith(b"VERSION")
        made.append(one)
    return made

for one in connect():
    one.close()
sockets = connect()
files = 0
try:
    while True:
        os.open("/dev/null", os.O_RDONLY)
        files += 1
except OSError:
    pass
for one in sockets:
    one.sendall(b"version\\r\\n")
    assert one.recv(100).startswith(b"VERSION")
print(files)
"""


def files(bench, library, n):
    done = subprocess.run([sys.executable, "-c", CODE, str(bench.server.port), str(n)], check=True,
                          env=preloaded(library, bench.server.address), capture_output=True, text=True, timeout=60)
    return int(done.stdout)


@pytest.mark.parametrize("n", [0, 10, 100, 250, 400])
def test_at_most_a_quarter_of_the_limit_is_ours(bench, n):
    plain, shim = files(bench, None, n), files(bench, LIBRARY, n)
    assert plain - shim <= min(n + 8, LIMIT // 4)
