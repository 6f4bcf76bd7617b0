"""A path that breaks in silence while the program has a connection. TCP keepalive is on then, which the
program did not ask for: it must not end the connection earlier than without the shim. The path is a pair
of network devices between two namespaces, so this needs root."""

import contextlib
import subprocess
import time

import pytest

from support import LIBRARY, PYTHON, die_with_parent, free_port, preloaded

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


@contextlib.contextmanager
def started(command, environment=None):
    """A process that ends with the block."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env=environment, preexec_fn=die_with_parent)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@contextlib.contextmanager
def namespace():
    """The words that put a command in a network namespace of its own, and a process that is in it."""
    with started(["unshare", "--net", "sh", "-c", "echo; exec cat"]) as holder:
        if not holder.stdout.readline():
            pytest.skip("no network namespace can be made")
        yield ["nsenter", f"--net=/proc/{holder.pid}/ns/net"], holder.pid


def ip(inside, words):
    subprocess.run([*inside, "ip", *words.split()], check=True)


@contextlib.contextmanager
def path():
    """The words for the namespaces at its two ends."""
    with namespace() as (here, _), namespace() as (there, pid):
        ip(here, f"link add wire type veth peer name wire netns {pid}")
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
        with started(here + program, preloaded(None, None)) as plain, \
                started(here + program, shim) as pooled:
            assert [each.stdout.readline() for each in (plain, pooled)] == 2 * ["before\n"]
            assert "reused as" in log.read_text()
            ip(there, f"route add blackhole {CLIENT}/32")
            time.sleep(BREAK_SECONDS)
            ip(there, f"route delete blackhole {CLIENT}/32")
            for each in plain, pooled:
                each.stdin.write("\n")
                each.stdin.flush()
            assert [each.stdout.readline() for each in (plain, pooled)] == 2 * ["after\n"]
