"""What connect() on a non-blocking socket returns for a pooled connection, and to which caller."""

import errno
import shutil

import pytest

from beside import LIBRARY, PYTHON, run

# Loads a library, unlinks it if asked to, and prints what its connect() said.
LOADS = """
import ctypes, os, sys
library = ctypes.CDLL(sys.argv[2])
if sys.argv[3] == "gone":
    os.unlink(sys.argv[2])
print(library.answer(int(sys.argv[1])))
"""

# The socket module, and connect() itself by ctypes, in one interpreter.
BOTH = """
import ctypes, socket, struct, sys
port = int(sys.argv[1])
def park():
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"get a\\r\\n")
        assert connection.recv(9) == b"END\\r\\n"
def plain():
    libc = ctypes.CDLL(None, use_errno=True)
    with socket.socket(type=socket.SOCK_STREAM | socket.SOCK_NONBLOCK) as connection:
        address = struct.pack("=H", socket.AF_INET) + struct.pack("!HI8x", port, 0x7f000001)
        return libc.connect(connection.fileno(), address, len(address)) and ctypes.get_errno()
def module():
    with socket.socket() as connection:
        connection.setblocking(False)
        return connection.connect_ex(("127.0.0.1", port))
park()
print(plain())
park()
print(module())
"""

PYTHONS = ["_socket.cpython-311-x86_64-linux-gnu.so", "_socket.cpython-313t-aarch64-linux-gnu.so",
           "libpython3.11.so.1.0", "libpython3.so", "python3", "python3.11", "python3.13td"]
OTHERS = ["_socket.pypy39-pp73-x86_64-linux-gnu.so", "libpypy3.9-c.so", "libpython2.7.so.1.0",
          "python2.7", "python3-config", "python3.11.so", "other.so", "a libpython3.11.so.1.0",
          "_ssl.cpython-311-x86_64-linux-gnu.so"]


def told(bench, *command):
    """What a command prints with the shim, which must have reused a connection."""
    done = run([PYTHON, "-c", *command], bench.environment(LIBRARY))
    assert (done.code, done.err) == (0, "")
    assert "reused as" in bench.log()
    return list(map(int, done.out.split()))


@pytest.mark.parametrize("there", ["there", "gone"])
@pytest.mark.parametrize("name", PYTHONS + OTHERS)
def test_name_of_the_caller(bench, built, name, there):
    """Only the name of the file counts, not the directory."""
    folder = bench.folder / "python3.11"
    folder.mkdir()
    shutil.copy(built("callers.c", flags=("-shared", "-fPIC")), folder / name)
    expected = 0 if name in PYTHONS else errno.EINPROGRESS
    assert told(bench, LOADS, str(bench.server.port), str(folder / name), there) == [expected]


def test_socket_module(bench):
    assert told(bench, BOTH, str(bench.server.port)) == [errno.EINPROGRESS, 0]
