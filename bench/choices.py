"""The choices: what a user could do instead, side by side.

A web application that looks up one key for a request: unmodified, with the shim, through twemproxy,
rewritten to connections that stay open; and other servers without and with the shim. Every server
has a memcached of its own. The application is on one processor, everything else on the other.
"""

import contextlib
import dataclasses
import functools
import os
import tempfile

from lib import machine
from lib.report import Report, number, quartiles
from lib.rounds import interleaved, ratios, spread
from lib.worker import Worker
from lib.wrk import wrk
from matrix import (APPS, PROGRAMS, Running, Twemproxy, Volatile, gunicorn, listening,
                    nginx_before_fpm, php_fpm)
from support import LIBRARY, PYTHON, Process, free_port, load, preloaded

HERE = os.path.dirname(os.path.abspath(__file__))
REWRITTEN = os.path.join(HERE, "choices")
ROUNDS = 8
LOAD_SECONDS = 1
CONCURRENCY = 20
KEYS = 1000
SECONDS = 400
CLIENT_ROUNDS = 10
CLIENT_GETS = 300


@dataclasses.dataclass
class Choice:
    """A server as its users run it."""
    name: str
    command: object
    shim: bool = False
    memcached: object = functools.partial(Volatile, "-c", "8192")
    environment: dict = dataclasses.field(default_factory=dict)
    front: object = None


GEVENT = ("-k", "gevent")
AS_IT_IS = gunicorn("memcache_app", *GEVENT)


def both(name, command, **more):
    return [Choice(f"{name}", command, **more),
            Choice(f"{name}, shim", command, shim=True, **more)]


# Ratios are to the first of each group.
GROUPS = {
    "gunicorn, gevent, python-memcached": [
        Choice("as it is", AS_IT_IS),
        Choice("shim", AS_IT_IS, shim=True),
        Choice("through twemproxy", AS_IT_IS, memcached=Twemproxy),
        Choice("shim, through twemproxy", AS_IT_IS, shim=True, memcached=Twemproxy),
        Choice("rewritten: pymemcache PooledClient", gunicorn("pooled_app", *GEVENT)),
        Choice("rewritten: one connection kept open", gunicorn("persistent_app", *GEVENT),
               environment={"APP_CONNECTIONS": "1"}),
        Choice(f"rewritten: {CONCURRENCY} connections kept open",
               gunicorn("persistent_app", *GEVENT),
               environment={"APP_CONNECTIONS": str(CONCURRENCY)}),
    ],
    "Django, MemcachedCache": both("gunicorn, gevent", gunicorn("django_app", *GEVENT),
                                   environment={"APP_BACKEND": "MemcachedCache"}),
    "Django, PyMemcacheCache": both("gunicorn, gevent", gunicorn("django_app", *GEVENT),
                                    environment={"APP_BACKEND": "PyMemcacheCache"}),
    "PHP, memcached": both("php-fpm, 4 workers, behind nginx", php_fpm, front=nginx_before_fpm,
                           environment={"APP_CLIENT": "text"}),
    "a thread for each request, python-memcached": both(
        "http.server", listening("thread_per_request.py")),
}


class Served:
    """Starts a choice, which runs until STACK ends."""

    def __init__(self, choice, stack):
        directory = stack.enter_context(tempfile.TemporaryDirectory())
        self.memcached = stack.enter_context(choice.memcached())
        self.behind = getattr(self.memcached, "behind", self.memcached)
        running = Running(directory, free_port(), self.memcached.address)
        environment = preloaded(LIBRARY if choice.shim else None, self.memcached.address,
                                APP_SERVER=self.memcached.address,
                                PYTHONPATH=os.pathsep.join((APPS, PROGRAMS, REWRITTEN)),
                                **choice.environment)
        stack.enter_context(Process(machine.on_cpu(machine.ONE_CPU, choice.command(running)),
                                    running.port, environment, cwd=APPS))
        self.port = running.port
        if choice.front:
            before_it = Running(directory, free_port(), running.server, running.port)
            stack.enter_context(Process(choice.front(before_it), before_it.port))
            self.port = before_it.port
        self.behind.store({f"key-{key}": f"value-of-key-{key}" for key in range(KEYS)})
        self.before = None
        # gunicorn listens before it has loaded the application.
        if load(self.port, CONCURRENCY, 1).answered < CONCURRENCY:
            raise RuntimeError(f"{choice.name} does not answer")

    def processor_seconds(self):
        """The processes of memcached, and of the proxy before it."""
        return [machine.cpu_seconds(process.process.pid)
                for process in dict.fromkeys((self.behind, self.memcached))]

    def load(self):
        return wrk(self.port, CONCURRENCY, LOAD_SECONDS)

    def begin(self):
        self.before = self.memcached.stats(), self.processor_seconds()

    def end(self):
        """Connections opened since begin(), sockets left in TIME_WAIT, processor seconds used."""
        stats, seconds = self.before
        return (self.memcached.connections_since(stats), machine.time_wait(self.memcached.port),
                [now - then for now, then in zip(self.processor_seconds(), seconds)])


def measure(choices):
    """({name: what load.lua said in each round}, {name: what Served.end() said})."""
    with contextlib.ExitStack() as stack:
        served = {choice.name: Served(choice, stack) for choice in choices}
        for one in served.values():
            one.load()
            one.begin()
        loads = interleaved(ROUNDS, {name: one.load for name, one in served.items()})
        return loads, {name: one.end() for name, one in served.items()}


def cells(rounds, end, base):
    """The row of one choice; BASE is what its rate is compared with."""
    opened, left, seconds = end
    requests = sum(said["requests"] for said in rounds)
    rates = [said["rate"] for said in rounds]

    def median(what):
        return spread([said[what] for said in rounds]).median

    return [number(median("rate")), *quartiles(spread(ratios(rates, base))), number(median("p50")),
            number(median("p99")), sum(said["failed"] for said in rounds), requests, opened, left,
            " + ".join(f"{used / requests * 1e6:.0f}" for used in seconds)]


def show_client(report):
    """The reasons why connections that the program keeps open are faster still."""
    command = [PYTHON, os.path.join(REWRITTEN, "client.py")]
    with Volatile() as server, Worker([*command, server.address], None, None) as plain, \
            Worker([*command, server.address], LIBRARY, server.address) as shim:
        times = interleaved(CLIENT_ROUNDS, {
            name: functools.partial(worker.ask, way, CLIENT_GETS) for name, worker, way in (
                ("a client kept", plain, "kept"),
                ("a new client, a connection kept", plain, "object"),
                ("a new client and connection, shim", shim, "fresh"),
                ("a new client and connection", plain, "fresh"))})
    report.raw_rounds("choices-client", times)
    report.say("python-memcached by itself, under gevent, one processor: microseconds for a get. "
               "What lies between the first two rows is the program's own work for a new client, "
               "which a rewrite saves and no pool below the program can.")
    report.table(["with", "µs", "quartiles"],
                 [[name, *quartiles(spread(values))] for name, values in times.items()])


HEADER = ["requests/s", "ratio", "quartiles", "p50 ms", "p99 ms", "failed", "requests",
          "connections opened", "TIME_WAIT left", "memcached's CPU (+ proxy's), µs a request"]


def main():
    machine.stay_on(machine.OTHER_CPU)
    with machine.bounded(SECONDS), Report("choices", "The choices") as report:
        report.say(f"{ROUNDS} rounds of {LOAD_SECONDS} s for each server of a group, interleaved; "
                   f"wrk, {CONCURRENCY} at a time, a connection for each request, every answer "
                   "compared with the value of its key (others count as failed). The application "
                   "has one processor, all others share the second. Ratio of requests per second, "
                   "within a round, to the first of the group. Connections are those opened after a "
                   "round to warm up.")
        raw = []
        for group, choices in GROUPS.items():
            loads, ends = measure(choices)
            rates = {name: [said["rate"] for said in rounds] for name, rounds in loads.items()}
            base = rates[choices[0].name]
            report.table([group, *HEADER],
                         [[name, *cells(rounds, ends[name], base)]
                          for name, rounds in loads.items()])
            raw += [[group, name, count, *said.values()]
                    for name, rounds in loads.items() for count, said in enumerate(rounds)]
            first, second, *others = rates.values()
            report.headline(f"{group}: requests per second, shim to no shim",
                            spread(ratios(second, first)))
            if others:
                for name in list(rates)[-2:]:
                    report.headline(f"the same, shim to {name}",
                                    spread(ratios(second, rates[name])), "≥ 0.95")
                report.bars("choices", f"{group}: requests per second",
                            {name: spread(ratios(values, base)) for name, values in rates.items()},
                            "ratio to the program as it is, median and quartiles")
        show_client(report)
        report.raw("choices", ["group", "choice", "round", "rate", "requests", "p50 ms", "p99 ms",
                               "failed"], raw)


if __name__ == "__main__":
    main()
