"""A path that breaks in silence while the program has a connection. TCP keepalive is on then, which the
program did not ask for: it must not end the connection earlier than without the shim. The path is a pair
of network devices between two namespaces, so this needs root."""

import contextlib
import subprocess
import time

import pytest

from namespaces import namespace, started
from support import LIBRARY, PYTHON, free_port, preloaded

CLIENT, SERVER = "10.78.0.1", "10.78.0.2"
BREAK_SECONDS = 60

PROGRAM = """
import socket, sys

def connect():
    connection = socket.create_connection((sys.argv[1], int(sys.argv[2])), 20)
    return connection, connection.makefile("rb")

def get(connection, answers):
    connection.sendall(b"get break\\r\\n")
    lines = [answers.readline() for _ in range(3)]
    assert lines == [b"VALUE break 0 5\\r\\n", b"break\\r\\n", b"END\\r\\n"], lines

connection, answers = connect()
connection.sendall(b"set break 0 0 5\\r\\nbreak\\r\\n")
assert answers.readline() == b"STORED\\r\\n"
answers.close()
connection.close()
connection, answers = connect()
get(connection, answers)
print("before", flush=True)
sys.stdin.readline()
get(connection, answers)
print("after", flush=True)
"""


def ip(inside, words):
    subprocess.run([*inside, "ip", *words.split()], check=True)


@contextlib.contextmanager
def path():
    """The words for the namespaces at its two ends."""
    with contextlib.ExitStack() as stack:
        try:
            (here, _), (there, there_path) = (stack.enter_context(namespace()) for _ in range(2))
        except RuntimeError as error:
            pytest.skip(str(error))
        ip(here, f"link add wire type veth peer name wire netns {there_path}")
        for inside, address in (here, CLIENT), (there, SERVER):
            ip(inside, f"address add {address}/24 dev wire")
            ip(inside, "link set wire up")
            ip(inside, "link set lo up")
        yield here, there


def wait_for(inside, port):
    for _ in range(100):
        if subprocess.run([*inside, PYTHON, "-c", "import socket; socket.create_connection("
                           f"('{SERVER}', {port}), 1)"], stderr=subprocess.DEVNULL,
                          check=False).returncode == 0:
            return
        time.sleep(0.1)
    raise RuntimeError("memcached does not listen")


def test_a_break_of_a_minute_is_survived_as_without_the_shim(tmp_path):
    port = free_port()
    log = tmp_path / "log"
    program = [PYTHON, "-c", PROGRAM, SERVER, str(port)]
    shim = preloaded(LIBRARY, f"{SERVER}:{port}", MCPOOL_LOG=str(log), MCPOOL_LOG_LEVEL="debug",
                     MCPOOL_STATS=str(tmp_path), MCPOOL_KEEPALIVE="1s")
    with path() as (here, there), \
            started([*there, "memcached", "-u", "nobody", "-l", SERVER, "-p", str(port)]):
        wait_for(here, port)
        with started([*here, *program], env=preloaded(None, None), text=True) as plain, \
                started([*here, *program], env=shim, text=True) as pooled:
            assert [each.stdout.readline() for each in (plain, pooled)] == 2 * ["before\n"]
            assert "reused as" in log.read_text()
            ip(there, f"route add blackhole {CLIENT}/32")
            time.sleep(BREAK_SECONDS)
            ip(there, f"route delete blackhole {CLIENT}/32")
            for each in plain, pooled:
                each.stdin.write("\n")
                each.stdin.flush()
            assert [each.stdout.readline() for each in (plain, pooled)] == 2 * ["after\n"]
