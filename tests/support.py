"""What the tests and the demo with real programs share: servers of their own, and load that checks its
answers.

Every server listens on a free loopback port below the kernel's ephemeral ones, is stopped by its
process, and dies with the test that started it.
"""

import collections
import concurrent.futures
import contextlib
import ctypes
import glob
import http.client
import os
import random
import signal
import socket
import struct
import subprocess
import time

PYTHON = "/usr/bin/python3"
TESTS = os.path.dirname(os.path.abspath(__file__))
BUILD = os.environ.get("TEST_BUILD", os.path.join(TESTS, "..", "build"))
LIBRARY = os.path.abspath(os.path.join(BUILD, "libmcpool.so"))
PORTS = range(30000, 32768)
ESTABLISHED = "01"
# How many times longer everything may take, as on an emulated machine.
SLOWNESS = int(os.environ.get("TEST_SLOWNESS", "1"))


# What `mcpool off` and its kin leave for a process: magic, pid, wish, start, PID namespace, generation,
# endpoint. As shim/stats/switch_file.h has it.
SWITCH = struct.Struct("<QiIQQQ128s")
SWITCH_MAGIC = 0x68637469776c706d
ON, DRY, OFF, FLUSH = range(4)


def wish_for(process, what, **changes):
    """The name and the content of that file for a process."""
    with open(f"/proc/{process}/stat", encoding="ascii", errors="replace") as file:
        start = int(file.read().rsplit(")", 1)[1].split()[19])
    fields = {"magic": SWITCH_MAGIC, "pid": process, "wish": what, "start": start,
              "namespace": os.stat("/proc/self/ns/pid").st_ino, "generation": 1, "endpoint": b"", **changes}
    return f"{process}-{start}.switch", SWITCH.pack(*fields.values())


def free_ports(count):
    """The first of COUNT free loopback ports in a row, outside the range from which outgoing connections take
    theirs."""
    for first in random.sample(PORTS, len(PORTS)):
        with contextlib.ExitStack() as probes:
            try:
                for port in range(first, first + count):
                    probes.enter_context(socket.socket()).bind(("127.0.0.1", port))
                return first
            except OSError:
                continue
    raise RuntimeError("no free port")


def free_port():
    return free_ports(1)


def die_with_parent():
    """In a child: dies with the test, also when the test is killed."""
    parent_death_signal = 1
    ctypes.CDLL(None).prctl(parent_death_signal, signal.SIGKILL)


def preloaded(library, servers, **more):
    """The environment of a program that runs with the library, or without when it is None."""
    environment = {name: value for name, value in os.environ.items()
                   if not name.startswith("MCPOOL_") and name != "LD_PRELOAD"}
    if library:
        environment.update(LD_PRELOAD=library, MCPOOL_SERVERS=servers)
    environment.update(more)
    return environment


def listens(port):
    """True when a server accepts connections at a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


class Process:
    """A server of ours: started, waited for until it accepts connections, stopped."""

    def __init__(self, command, port, environment=None, cwd=None):
        self.port = port
        self.output = open(os.devnull, "w")
        self.process = subprocess.Popen(command, env=environment, cwd=cwd, stdin=subprocess.DEVNULL,
                                        stdout=self.output, stderr=self.output,
                                        preexec_fn=die_with_parent, start_new_session=True)
        self.wait_until_it_listens()

    def wait_until_it_listens(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.process.args} ended with {self.process.returncode}")
            if listens(self.port):
                return
            time.sleep(0.05)
        self.stop()
        raise RuntimeError(f"{self.process.args} does not listen")

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.output.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()


def stats_of(port):
    """The statistics of the memcached at a loopback port."""
    with socket.create_connection(("127.0.0.1", port), 5) as connection:
        connection.sendall(b"stats\r\n")
        answer = b""
        while not answer.endswith(b"END\r\n"):
            answer += connection.recv(65536)
    return {words[1]: words[2] for words in
            (line.split(" ", 2) for line in answer.decode().splitlines())
            if words[0] == "STAT"}


def connections(port):
    """The inodes of the established connections to PORT. memcached cannot be asked: it may be full."""
    inodes = []
    for name in ("tcp", "tcp6"):
        with open(f"/proc/net/{name}", encoding="ascii") as file:
            inodes += [words[9] for words in map(str.split, list(file)[1:])
                       if words[3] == ESTABLISHED and int(words[2].rpartition(":")[2], 16) == port]
    return inodes


def in_queues(port):
    """How many connections to PORT no process has: they are on their way from one to another."""
    mine = {f"socket:[{inode}]" for inode in connections(port)}
    for path in glob.glob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            mine.discard(os.readlink(path))
    # What was closed meanwhile was not looked for in time.
    return len(mine & {f"socket:[{inode}]" for inode in connections(port)})


class Memcached(Process):
    """A real memcached."""

    def __init__(self, *options):
        port = free_port()
        super().__init__(["memcached", "-u", "nobody", "-l", "127.0.0.1", "-p", str(port),
                          "-U", "0", "-t", "2", *options], port)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def stats(self):
        return stats_of(self.port)

    def store(self, values):
        """Puts strings in the cache, on one connection."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            answers = connection.makefile("rb")
            for key, value in values.items():
                connection.sendall(f"set {key} 0 0 {len(value)}\r\n{value}\r\n".encode())
                assert answers.readline() == b"STORED\r\n"

    def connections_since(self, before):
        """Connections opened since BEFORE, an earlier answer of stats(), without our own."""
        return int(self.stats()["total_connections"]) - int(before["total_connections"]) - 1

    def pause(self):
        self.process.send_signal(signal.SIGSTOP)

    def go_on(self):
        self.process.send_signal(signal.SIGCONT)


Load = collections.namedtuple("Load", "answered failed wrong")


def ask(port, path, expected):
    """Makes one request on a connection of its own and returns its outcome."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read().decode()
        if answer.status != 200:
            return "failed"
        return "answered" if body == expected else "wrong"
    except OSError:
        return "failed"
    finally:
        connection.close()


def load(port, requests, concurrency, first_key=0):
    """Asks for REQUESTS different keys, CONCURRENCY at a time; each answer must be its key's."""
    def one(number):
        key = f"key-{first_key + number}"
        return ask(port, f"/?{key}", f"value-of-{key}")

    with concurrent.futures.ThreadPoolExecutor(concurrency) as threads:
        outcomes = collections.Counter(threads.map(one, range(requests)))
    return Load(outcomes["answered"], outcomes["failed"], outcomes["wrong"])
