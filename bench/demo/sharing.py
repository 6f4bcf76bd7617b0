"""The part of the demo about several workers: bursts of requests, each for the next worker of gunicorn."""

import collections
import contextlib
import os
import re
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.append(os.path.join(HERE, ".."))
from lib import each_worker
from lib.counted import Counted
from states import sockets
from support import PYTHON, Memcached, Process, free_ports, load, preloaded

WORKERS, BURST = 8, 20
ROUNDS = 3    # of one burst for each worker; the first one fills the cache and warms up
# So long a request keeps its connection, that a burst needs as many as it has requests.
OTHER_WORK = 0.05
# What README and manual say that a server has to have room for.
ROOM = 2 * BURST + WORKERS

Row = collections.namedtuple("Row", "opened most waiting failed wrong")


def how_to_share():
    """Under a seccomp filter, as Docker has one, workers share only where that is asked for."""
    with open("/proc/self/status", encoding="utf-8") as file:
        filtered = re.search(r"^Seccomp:\s*[12]", file.read(), re.MULTILINE)
    return {"MCPOOL_SHARE": "always"} if filtered else {}


class Service:
    """gunicorn with several workers, and a memcached, for one row of the table."""

    def __init__(self, stack, library, settings):
        self.server = stack.enter_context(Memcached())
        port = free_ports(1 + WORKERS)
        self.first = port + 1
        command = [PYTHON, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-k", "gevent", "-w", str(WORKERS),
                   "-c", each_worker.__file__, "app:app"]
        address = self.server.address
        stack.enter_context(Process(command, port, preloaded(
            library, address, DEMO_SERVER=address, DEMO_OTHER_WORK=str(OTHER_WORK), APP_PORT=str(self.first),
            **settings), cwd=HERE))
        each_worker.wait_for_workers(self.first, WORKERS)
        self.ours = sockets(self.server.port)
        self.count = stack.enter_context(Counted(self.server))
        self.failed = self.wrong = 0

    def burst(self, worker):
        found = load(self.first + worker, BURST, BURST, worker * BURST)
        self.failed += found.failed
        self.wrong += found.wrong

    def row(self):
        return Row(self.count.ask()[0] - self.count.before, self.count.most,
                   sockets(self.server.port)["TIME-WAIT"] - self.ours["TIME-WAIT"], self.failed, self.wrong)


def is_good(rows):
    """Whether the library did what it is for, and sharing too."""
    return (all(row.failed == row.wrong == 0 for row in rows.values()) and
            rows["libmcpool"].most <= ROOM < rows["MCPOOL_SHARE=off"].most)


def show_sharing(library, rounds=ROUNDS):
    """Prints the table; true when the workers shared."""
    print(f"gunicorn -k gevent -w {WORKERS}: bursts of {BURST} requests at a time, each for the next worker, "
          f"{rounds} rounds, in turns.\nWith MCPOOL_SHARE=off each worker keeps what it needed. Otherwise they "
          "share what is idle:")
    print(f"{'':24}{'connections':>11}{'most at':>9}{'TIME_WAIT':>11}{'failed':>8}{'wrong':>7}")
    print(f"{'':24}{'opened':>11}{'a time':>9}{'':>19}{'values':>7}", flush=True)
    with contextlib.ExitStack() as stack:
        services = {name: Service(stack, preload, settings) for name, preload, settings in (
            ("without", None, {}), ("MCPOOL_SHARE=off", library, {"MCPOOL_SHARE": "off"}),
            ("libmcpool", library, how_to_share()))}
        for _ in range(rounds):
            for worker in range(WORKERS):
                for service in services.values():
                    service.burst(worker)
        rows = {name: service.row() for name, service in services.items()}
    for name, row in rows.items():
        print(f"    {name:20}{row.opened:11}{row.most:9}{row.waiting:11}{row.failed:8}{row.wrong:7}", flush=True)
    return is_good(rows)
