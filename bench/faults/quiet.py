"""Programs that were busy once and go quiet: how many connections stay, and whether others find room."""

import contextlib
import os
import time

from lib.cases import AFTER_IDLE, Row, Server, at_most, held, held_by, rest_until
from lib.servers import checked_load, serving
from matrix import DALLI, FPM, GUNICORN, MEMCACHE, SPY, UWSGI, gunicorn, nginx_before_fpm, php_fpm, puma, uwsgi
from soak import HERE as SOAK

from faults.cases import Client, case

REQUESTS = 20


def late(address):
    """Requests of another process that are refused or not answered, of REQUESTS. It has no library."""
    with Client(None, address, patience=500) as client:
        return client.failed("batch", REQUESTS, 1)


def fleet(library, way, at_once, processes, width, *options):
    """(answered in the bursts, refused behind them; 12 s after the last burst: held, most held by a process,
    refused; after the idle time-out: held, refused)"""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(Server(*options))
        clients = [stack.enter_context(Client(library, server.address, way, 4000))
                   for _ in range(processes)]
        if at_once:
            for client in clients:
                client.tell("batch", width, width)
            served = sum(client.hear().right for client in clients)
        else:
            served = sum(client.burst(width).right for client in clients)
        end = time.monotonic()
        at_first = late(server.address)
        rest_until(end, 12)
        most = max(held_by(client.process.pid, server.port) for client in clients)
        soon = held(server.port), most, late(server.address)
        # Without the library nothing is due later.
        rest_until(end, AFTER_IDLE if library else 13)
        return served, at_first, *soon, held(server.port), late(server.address)


def rows(processes, width, room=True):
    """A server without room for one connection of each process needs no limit for all."""
    return (Row(f"answered in the bursts, of {processes * width}"),
            Row(f"another process right behind: refused, of {REQUESTS}"),
            Row("held 12 s after", *(at_most(processes) if room else ())),
            Row("held by one process then, at most", *at_most(1)),
            Row(f"another process then: refused, of {REQUESTS}", *at_most(0)),
            Row("held after the idle time-out and 2 s", *at_most(0)),
            Row(f"another process at last: refused, of {REQUESTS}", *at_most(0)))


for wait in ("poll", "select", "epoll"):
    for order in ("at-once", "in-turn"):
        case(f"quiet-{wait}-{order}", *rows(40, 32))(
            lambda library, wait=wait, order=order: fleet(
                library, wait, order == "at-once", 40, 32, "-c", "1024"))
        case(f"full-{wait}-{order}", *rows(40, 32, room=False), seconds=300)(
            lambda library, wait=wait, order=order: fleet(
                library, wait, order == "at-once", 40, 32, "-c", "50", "-o", "no_maxconns_fast"))


def node(running):
    return ["node", "--expose-gc", os.path.join(SOAK, "page.js"), str(running.port)]


def java(running):
    return ["java", "-XX:TieredStopAtLevel=1", os.path.join(os.path.dirname(__file__), "Server.java"),
            str(running.port)]


FRESH = "fresh_memcache_app"
PYTHON_WEB = (*GUNICORN, *MEMCACHE)

# name: (command, packages, what is in front, how many may stay: one for each process that blocks in accept)
SERVERS = {
    "gunicorn-sync": (gunicorn(FRESH, "-w", "2"), PYTHON_WEB, None, 0),
    "gunicorn-gthread": (gunicorn(FRESH, "-k", "gthread", "--threads", "8"), PYTHON_WEB, None, 0),
    "gunicorn-gevent": (gunicorn(FRESH, "-k", "gevent"), PYTHON_WEB, None, 0),
    "gunicorn-eventlet": (gunicorn(FRESH, "-k", "eventlet"), ("python3-eventlet", *PYTHON_WEB), None, 0),
    "uwsgi": (uwsgi(f"{FRESH}:app", "python3", "--processes", "4"), UWSGI, None, 0),
    "uwsgi-threads": (uwsgi(f"{FRESH}:app", "python3", "--threads", "8"), UWSGI, None, 0),
    "puma": (puma, (*DALLI, "puma"), None, 0),
    "node": (node, ("nodejs",), None, 0),
    "jvm": (java, SPY[1:], None, 0),
    "php-fpm": (php_fpm, FPM, nginx_before_fpm, 4),
}

# Servers of other cases, which are not asked to go quiet.
RECYCLING = (gunicorn(FRESH, "-w", "2", "--max-requests", "20"), PYTHON_WEB, None, 0)


def real_server(library, kind):
    with Server() as memcached, serving(kind, library, memcached.address) as (_, port):
        failed = checked_load(port, 80, 10)
        end = time.monotonic()
        rest_until(end, 2)
        soon = held(memcached.port)
        if library:
            rest_until(end, AFTER_IDLE)
        return failed, soon, held(memcached.port)


for server_name, server_kind in SERVERS.items():
    case(f"server-{server_name}", Row("failed, of 80", *at_most(0)), Row("held 2 s after the load"),
         Row("held after the idle time-out and 2 s", *at_most(server_kind[3])))(
             lambda library, kind=server_kind: real_server(library, kind))
