"""Processes that pool connections, for the tests of the commands that look at them."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
from support import BUILD, LIBRARY, PYTHON, die_with_parent, free_port, preloaded

SHIM = os.path.join(HERE, "..", "..", "shim")
COMMAND = os.path.abspath(os.environ.get("MCPOOL_COMMAND", os.path.join(BUILD, "mcpool")))

# Reads a count from each line on stdin, makes so many turns, and prints a line when they are done. A turn
# with a negative count closes with half a request sent. With a second argument it waits so many seconds at a
# time, as servers with a heartbeat do.
CLIENT = """
import select, socket, sys
patience = float(sys.argv[2]) if len(sys.argv) > 2 else None
while True:
    while not select.select([sys.stdin], [], [], patience)[0]:
        pass
    if not (line := sys.stdin.readline()):
        break
    for _ in range(abs(int(line))):
        s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        s.sendall(b"get a\\r\\n" if int(line) > 0 else b"get a\\r\\nget ")
        assert s.recv(5) == b"END\\r\\n"
        s.close()
    print("done", flush=True)
"""


def mcpool(*arguments, environment=None, **more):
    """Runs the command to its end."""
    return subprocess.run([COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60,
                          check=False, env=environment or os.environ, **more)


class Client:
    """A process that pools."""

    def __init__(self, server, stats, program=PYTHON, library=LIBRARY, arguments=(), user=None,
                 **more):
        environment = preloaded(library, server.address if library else None,
                                MCPOOL_STATS=str(stats), **more)
        self.process = subprocess.Popen([program, "-c", CLIENT, str(server.port), *arguments], env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        user=user, preexec_fn=die_with_parent)
        self.pid = self.process.pid
        self.stats = stats if library and "MCPOOL_DISABLE" not in more else None
        self.made = 0

    def turns(self, number):
        self.process.stdin.write(f"{number}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"
        self.made += abs(number)
        self.wait_until_written()
        return self

    def wait_until_written(self):
        """Waits until the file has the counts. A process writes it once a second, or when it has waited for a
        second."""
        deadline = time.monotonic() + 5
        while self.stats and not self.is_written():
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def is_written(self):
        done = mcpool("stat", "--json", self.pid, environment=preloaded(None, None,
                                                                        MCPOOL_STATS=str(self.stats)))
        servers = [server for process in json.loads(done.stdout)["processes"]
                   for server in process["servers"]]
        return (sum(server["connects"] for server in servers), sum(server["in_use"] for server in servers)
                ) == (self.made, 0)

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(20) == 0

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)


class Host:
    """A directory of counters, and the processes that write there."""

    def __init__(self, server, stats):
        self.server = server
        self.stats = stats
        self.clients = []

    def client(self, **more):
        self.clients.append(Client(self.server, self.stats, **more))
        return self.clients[-1]

    def mcpool(self, *arguments, **more):
        return mcpool(*arguments, environment=self.environment(), **more)

    def environment(self):
        return preloaded(None, None, MCPOOL_STATS=str(self.stats))

    def seen(self, *arguments):
        """The output of `mcpool stat --json`, by process."""
        done = self.mcpool("stat", "--json", *arguments)
        return {process["pid"]: process for process in json.loads(done.stdout)["processes"]}

    def close(self):
        for client in self.clients:
            if client.process.poll() is None:
                client.kill()


class Listener:
    """`COMMAND metrics --listen`, which runs and accepts connections."""

    timeout = 20

    def __init__(self, host, command):
        self.port = free_port()
        self.process = subprocess.Popen([command, "metrics", "--listen", str(self.port)],
                                        env=host.environment(), preexec_fn=die_with_parent)
        deadline = time.monotonic() + 20
        while True:
            try:
                self.dial().close()
                return
            except OSError:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    def dial(self):
        return socket.create_connection(("127.0.0.1", self.port), self.timeout)
