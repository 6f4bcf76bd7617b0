"""`mcpool off`, `on`, `dry` and `flush` in a web server under load."""

import http.client
import os
import subprocess
import threading
import time

import pytest

from beside import BUILD, LIBRARY, PYTHON, TESTS, preloaded
from support import Process, free_port

COMMAND = os.path.abspath(os.environ.get("MCPOOL_COMMAND", os.path.join(BUILD, "mcpool")))
WORKERS = 5
ORDERS = ("off", "on", "dry", "flush", "off", "dry", "on", "flush", "off", "on")


class Load:
    """Requests in threads of its own, until it is stopped. The value of a key says which key it is of."""

    def __init__(self, port):
        self.port = port
        self.answered = 0
        self.bad = []
        self.stopped = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(6)]
        for thread in self.threads:
            thread.start()

    def run(self, i):
        number = 10 * i
        while not self.stopped.is_set():
            number = (number + 1) % 500
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
            try:
                connection.request("GET", f"/?switched-{number}")
                answer = connection.getresponse()
                body = answer.read().decode()
            except OSError as error:
                body = repr(error)
            connection.close()
            if body == f"value-of-switched-{number}":
                self.answered += 1
            else:
                self.bad.append((number, body))

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


def workers(server):
    with open(f"/proc/{server.process.pid}/task/{server.process.pid}/children", encoding="ascii") as file:
        return file.read().split()


@pytest.fixture
def gunicorn(server, tmp_path):
    pytest.importorskip("gevent")
    environment = preloaded(LIBRARY, server.address, MCPOOL_STATS=str(tmp_path), APP_SERVER=server.address)
    port = free_port()
    with Process([PYTHON, "-m", "gunicorn", "-k", "gevent", "-w", str(WORKERS), "-b", f"127.0.0.1:{port}",
                  "soak_app:app"], port, environment, os.path.join(TESTS, "soak")) as running:
        yield running


def test_a_hundred_switches_under_load(gunicorn, tmp_path):
    """Each worker is switched 20 times. At the end all are off, and memcached has connections of requests only."""
    asked = Load(gunicorn.port)
    environment = preloaded(None, None, MCPOOL_STATS=str(tmp_path))
    try:
        deadline = time.monotonic() + 30
        while len(os.listdir(tmp_path)) < WORKERS:
            assert time.monotonic() < deadline, "a worker has no file of counters"
            time.sleep(0.1)
        pids = workers(gunicorn)
        assert len(pids) == WORKERS
        for order in [*ORDERS, *ORDERS[:9], "off"]:
            done = subprocess.run([COMMAND, order, *pids], env=environment, capture_output=True, text=True,
                                  timeout=60, check=False)
            assert (done.returncode, done.stderr) == (0, ""), done
    finally:
        asked.stop()
    assert asked.answered > 1000
    assert asked.bad == []
    assert not [entry for entry in os.listdir(tmp_path) if "switch" in entry]
    assert tcp_peers(pids) == []


def tcp_peers(pids):
    """The connections that the processes still have to a memcached, as the kernel lists them."""
    out = subprocess.run(["ss", "-Htnp", "state", "established"], capture_output=True, text=True, check=True).stdout
    return [line for line in out.splitlines() if any(f"pid={pid}," in line for pid in pids)]
