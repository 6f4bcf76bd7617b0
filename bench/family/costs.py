"""What it costs to give, to take and to prove, and what those pay who share nothing."""

import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile

from faults.quiet import FRESH, PYTHON_WEB
from faults.system import CALLS_OF_A_HIT, calls_of_a_hit
from instructions import per_turn
from lib.cases import OLD, OLD_LIBRARY, PACE, Missing, Row, Server, at_most, held
from lib.machine import ONE_CPU, stay_on
from lib.rounds import interleaved, ratios
from lib.servers import checked_load, loaded, serving
from lib.wire import SERVER as FAR
from lib.wire import can_make_one, network, wait_until_it_answers
from lib.worker import PROGRAMS, TURNS, Worker
from matrix import Volatile, gunicorn
from namespaces import started
from support import free_port

from family.cases import case

RING = os.path.join(PROGRAMS, "family", "ring")
PROCESSES = 7  # and up to 8 endpoints: each process meets each of them
ROUNDS = 20


def rounds():
    return max(3, round(ROUNDS * PACE))


def turns(count):
    return max(10, round(count * PACE))


def timed(plain, private, shared, count):
    """(give, take and proof; the same by the calls that no pool can leave out; a connect), in µs and for each round.
    The rings are one without the library, one whose processes keep their own, and one whose processes share."""
    times = interleaved(rounds(), {
        "open": lambda: plain.ask("open", count), "floor": lambda: plain.ask("floor", count),
        "least": lambda: plain.ask("least", count),
        "plain": lambda: plain.ask("cycle", count), "private": lambda: private.ask("cycle", count),
        "shared": lambda: shared.ask("cycle", count)})
    return ([shared + floor - private - kept for kept, floor, private, shared in
             zip(times["open"], times["floor"], times["private"], times["shared"])],
            [least - kept for kept, least in zip(times["open"], times["least"])],
            [connected - kept for kept, connected in zip(times["open"], times["plain"])])


def give_and_take(library, endpoints):
    """(give, take and proof; the least of these; a connect; idle connections of those that share)"""
    hosts = [f"127.0.0.{number + 1}" for number in range(endpoints)]
    # Without a directory of counters a family would have to suppose that there are many.
    with contextlib.ExitStack() as stack, tempfile.TemporaryDirectory() as directory:
        def ring(of, **more):
            server = stack.enter_context(Volatile(*(word for host in hosts[1:] for word in ("-l", host))))
            addresses = [f"{host}:{server.port}" for host in hosts]
            return stack.enter_context(Worker([RING, str(PROCESSES), *addresses], of, ",".join(addresses),
                                              MCPOOL_STATS=directory, **more)), server.port

        plain, _ = ring(None)
        private, _ = ring(library, MCPOOL_SHARE="off")
        shared, port = ring(library)
        return *timed(plain, private, shared, turns(500)), held(port)


def near(library, endpoints):
    stay_on(ONE_CPU)
    shared, _, connected, idle = give_and_take(library, endpoints)
    return statistics.median(ratios(shared, connected)), idle


RATIO = "give, take and proof, by a connect"
IDLE = f"idle connections of {PROCESSES} processes"

for count in (1, 8):
    case(f"give-and-take-{count}", Row(RATIO, "0.35 at most", lambda shim, plain: shim <= 0.35),
         Row(IDLE, *at_most(2 * count)), alone=True, columns=("old", "shim"))(
             lambda library, count=count: near(library, count))


@case("give-and-take-0.5-ms", Row(RATIO, "0.01 at most", lambda shim, plain: shim <= 0.01),
      Row("a cycle, by a get on an open connection", "1.1 at most", lambda shim, plain: shim <= 1.1),
      Row(IDLE, *at_most(2)), Row("the least that giving, taking and proof take, by a connect"), alone=True,
      columns=("old", "shim"))
def far_away(library):
    """Over a round trip of 0.5 ms. To give and to take does not cross the network, whose times vary by more than that,
    so its time is that on loopback; a cycle shows that no packet is waited for."""
    if not can_make_one():
        raise Missing("no network can be made")
    stay_on(ONE_CPU)
    shared, least, _, _ = give_and_take(library, 1)
    with network() as (forwarder, client, server), contextlib.ExitStack() as stack, \
            tempfile.TemporaryDirectory() as directory:
        def ring(of):
            port = free_port()
            stack.enter_context(started([*server, "memcached", "-u", "nobody", "-l", FAR, "-p", str(port), "-U", "0"]))
            address = f"{FAR}:{port}"
            while not wait_until_it_answers(client, address):
                pass
            return stack.enter_context(Worker([*client, RING, str(PROCESSES), address], of, address,
                                              MCPOOL_STATS=directory)), port

        (plain, _), (mine, port) = ring(None), ring(library)
        forwarder.ask(250)
        times = interleaved(rounds(), {"open": lambda: plain.ask("open", turns(50)),
                                       "plain": lambda: plain.ask("cycle", turns(50)),
                                       "mine": lambda: mine.ask("cycle", turns(50))})
        connected = statistics.median(times["plain"]) - statistics.median(times["open"])
        found = subprocess.run([*client, "ss", "-Htn", "state", "established", f"( dport = :{port} )"],
                               stdout=subprocess.PIPE, text=True, check=True).stdout
        return (statistics.median(shared) / connected, statistics.median(ratios(times["mine"], times["open"])),
                len(found.splitlines()), statistics.median(least) / connected)


def beside_old(library, command, order):
    """The time of a turn by that with the older library: the median over rounds."""
    if not OLD:
        raise Missing("OLD= names no commit")
    stay_on(ONE_CPU)
    with Server() as server, contextlib.ExitStack() as stack:
        workers = {name: stack.enter_context(Worker([*command, server.address], of, server.address, MCPOOL_STATS="off"))
                   for name, of in (("old", OLD_LIBRARY), ("shim", library))}
        times = interleaved(2 * rounds(), {name: lambda worker=worker: worker.ask(order, turns(2000))
                                           for name, worker in workers.items()})
        return statistics.median(times["shim"]) / statistics.median(times["old"])


AS_OLD = "1.02 at most", lambda shim, plain: shim <= 1.02

case("hit-time", Row("a cycle, by that with *old*", *AS_OLD), alone=True, columns=("shim",))(
    lambda library: beside_old(library, [TURNS], "cycle"))
case("hit-time-of-a-member", Row("a cycle of a process that has forked, by that with *old*", *AS_OLD), alone=True,
     columns=("shim",))(lambda library: beside_old(library, [RING, str(PROCESSES)], "hits"))


# As in the bench of faults: sharing may cost none more.
case("hit-calls", Row("system calls of a cycle", *at_most(CALLS_OF_A_HIT)), alone=True)(calls_of_a_hit)


@case("hit-instructions", Row("of a cycle, by those with *old*", *AS_OLD),
      Row("of a get on an open connection, by those with *old*", *AS_OLD), alone=True, columns=("shim",), seconds=400)
def instructions_of_a_hit(library):
    if not OLD:
        raise Missing("OLD= names no commit")
    if not shutil.which("valgrind"):
        raise Missing("no such program: valgrind")
    with Volatile() as server:
        return tuple(per_turn(TURNS, what, 0, server, library) / per_turn(TURNS, what, 0, server, OLD_LIBRARY)
                     for what in ("cycle", "open"))


@case("busy-gunicorn-sync", Row("processor time of a request in µs, less that with *old*"),
      Row("processor time of a request, by that with *old*"), alone=True, columns=("shim",))
def busy(library):
    """2 workers, each of which goes quiet between two requests, because there is one at a time."""
    if not OLD:
        raise Missing("OLD= names no commit")
    with contextlib.ExitStack() as stack:
        def ready(of):
            memcached = stack.enter_context(Server())
            settings = gunicorn(FRESH, "-w", "2"), PYTHON_WEB, None
            server, port = stack.enter_context(serving(settings, of, memcached.address))
            checked_load(port, 60, 8)

            def measure():
                requests, seconds = loaded(server.process.pid, port, 1)
                return 1e6 * seconds / requests
            return measure

        times = interleaved(rounds(), {"old": ready(OLD_LIBRARY), "shim": ready(library)})
        return (statistics.median(mine - old for mine, old in zip(times["shim"], times["old"])),
                statistics.median(ratios(times["shim"], times["old"])))
