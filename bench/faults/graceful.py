"""Servers that reload, recycle their workers or end: how long it takes, and how it ends."""

import concurrent.futures
import signal
import subprocess
import time

from lib.cases import Row, Server, as_plain
from lib.servers import checked_load, children, serving

from faults.cases import case
from faults.quiet import RECYCLING, SERVERS

SECONDS = ("seconds", *as_plain(more=1.5))
CODE = ("exit code", "as plain", lambda shim, plain: shim == plain)
LIMIT = 15


def finish(server, number):
    """(seconds, exit code) of a server that is told to end."""
    start = time.monotonic()
    server.process.send_signal(number)
    try:
        code = server.process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        code = None
    return time.monotonic() - start, code


def reload(server, number):
    """Seconds until all its workers are new ones."""
    old = children(server.process.pid)
    start = time.monotonic()
    server.process.send_signal(number)
    while time.monotonic() - start < LIMIT:
        now = children(server.process.pid)
        if now and not now & old:
            break
        time.sleep(0.02)
    return time.monotonic() - start


def ended(library, kind, number):
    with Server() as memcached, serving(kind, library, memcached.address) as (server, port):
        checked_load(port, 60, 8)
        return finish(server, number)


def reloaded(library, kind, number):
    with Server() as memcached, serving(kind, library, memcached.address) as (server, port), \
            concurrent.futures.ThreadPoolExecutor(1) as thread:
        checked_load(port, 60, 8)
        failed = thread.submit(checked_load, port, 300, 4)
        seconds = reload(server, number)
        return seconds, failed.result(), finish(server, signal.SIGTERM)[1]


for name, ending in (("php-fpm", signal.SIGQUIT), ("gunicorn-sync", signal.SIGTERM),
                     ("gunicorn-gevent", signal.SIGTERM), ("uwsgi", signal.SIGTERM)):
    case(f"end-{name}-{ending.name[3:]}", Row(*SECONDS), Row(*CODE), alone=True, seconds=60)(
        lambda library, name=name, ending=ending: ended(library, SERVERS[name], ending))

for name in ("gunicorn-sync", "gunicorn-gevent", "uwsgi"):
    case(f"reload-{name}-HUP", Row(*SECONDS), Row("failed, of 300", *as_plain(more=2)), Row(*CODE), alone=True,
         seconds=60)(lambda library, name=name: reloaded(library, SERVERS[name], signal.SIGHUP))


@case("reload-php-fpm-USR2", Row(*SECONDS), Row("failed, of 100 after it", *as_plain()), alone=True, seconds=60)
def php_fpm_usr2(library):
    """The master replaces itself, and has new workers then."""
    with Server() as memcached, serving(SERVERS["php-fpm"], library, memcached.address) as (server, port):
        checked_load(port, 60, 8)
        seconds = reload(server, signal.SIGUSR2)
        time.sleep(0.5)
        return seconds, checked_load(port, 100, 4)


@case("recycling-gunicorn", Row("failed, of 300", *as_plain(more=2)), alone=True, seconds=60)
def recycling(library):
    with Server() as memcached, serving(RECYCLING, library, memcached.address) as (_, port):
        return checked_load(port, 300, 4)
