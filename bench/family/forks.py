"""Servers that fork for each request, and workers that block in accept()."""

import concurrent.futures
import http.client
import os
import time

from lib.cases import AFTER_IDLE, Row, Server, at_most, held, rest_until
from lib.counted import Counted
from lib.servers import checked_load, serving
from matrix import MEMCACHE
from support import PYTHON, TESTS, Process, free_port, in_queues, preloaded

from family.cases import case

HERE = os.path.dirname(os.path.abspath(__file__))
PREFORK = os.path.join(HERE, "..", "faults", "prefork.py")
INTEROP = os.path.join(TESTS, "interop")


def forking(running):
    return [PYTHON, os.path.join(HERE, "forking.py"), str(running.port)]


def beneath_docker(running):
    """The same under the filter that Docker has by default."""
    return [PYTHON, os.path.join(INTEROP, "filtered.py"), "only", "EPERM", os.path.join(INTEROP, "docker.txt"),
            *forking(running)]


def fork_per_request(library, command, **more):
    needs = (*MEMCACHE, *(("python3-seccomp",) if command is beneath_docker else ()))
    with Server() as memcached, serving((command, needs, None), library, memcached.address, **more) as (_, port):
        with Counted(memcached) as during:
            failed = checked_load(port, 200, 8)
        return failed, during.opened


FAILED = Row("failed, of 200", *at_most(0))

case("fork-per-request", FAILED, Row("opened", *at_most(16)), alone=True)(
    lambda library: fork_per_request(library, forking))
case("fork-per-request-docker", FAILED, Row("opened"), alone=True)(
    lambda library: fork_per_request(library, beneath_docker))
case("fork-per-request-docker-always", FAILED, Row("opened", *at_most(16)), alone=True)(
    lambda library: fork_per_request(library, beneath_docker, MCPOOL_SHARE="always"))


def pages(port, requests, concurrency):
    """Asks for pages that say which worker answered."""
    def one(_):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/")
        answer = connection.getresponse()
        answer.read()
        connection.close()
        return answer.status

    with concurrent.futures.ThreadPoolExecutor(concurrency) as threads:
        if set(threads.map(one, range(requests))) != {200}:
            raise RuntimeError("not all requests were answered")


@case("all-block", Row("held 2 s after the load"), Row("held 12 s after it", *at_most(17)),
      Row("of these in queues", *at_most(1)), Row("held after the idle time-out and 2 s"), seconds=120)
def all_block(library):
    """16 workers that block in accept() and a parent in pause(): calls that are not cut. What is in a queue then has
    no process that looks after it. A worker may keep one, as it does without a family."""
    port = free_port()
    with Server() as memcached:
        environment = preloaded(library, memcached.address, APP_SERVER=memcached.address, MCPOOL_STATS="off")
        with Process([PYTHON, PREFORK, str(port), "16"], port, environment):
            pages(port, 400, 8)
            end = time.monotonic()
            rest_until(end, 2)
            soon = held(memcached.port)
            rest_until(end, 12)
            later, queued = held(memcached.port), in_queues(memcached.port)
            if library:
                rest_until(end, AFTER_IDLE)
            return soon, later, queued, held(memcached.port)
