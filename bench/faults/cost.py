"""What the library costs a web server, beside an older one."""

import contextlib
import shutil
import statistics

from lib.cases import OLD, OLD_LIBRARY, PACE, Missing, Row, Server, Wrong
from lib.machine import run_seconds
from lib.rounds import interleaved, ratios
from lib.servers import checked_load, serving
from lib.wrk import wrk

from faults.cases import case
from faults.quiet import SERVERS

ROUNDS = 20


@case("cost-gunicorn-gevent", Row("requests for a processor second, by those with *old*, median of 20 rounds",
                                  "0.99 at least", lambda shim, plain: shim >= 0.99),
      alone=True, columns=("shim",))
def cost(library):
    if not OLD:
        raise Missing("OLD= names no commit")
    if not shutil.which("wrk"):
        raise Missing("no such program: wrk")
    with contextlib.ExitStack() as stack:
        def started(of):
            memcached = stack.enter_context(Server())
            server, port = stack.enter_context(serving(SERVERS["gunicorn-gevent"], of, memcached.address))
            checked_load(port, 60, 8)

            def measure():
                before = run_seconds(server.process.pid)
                said = wrk(port, 4, 1)
                if said["failed"]:
                    raise Wrong(f"{said['failed']} requests were not answered right")
                return said["requests"] / (run_seconds(server.process.pid) - before)
            return measure

        rounds = interleaved(max(3, round(ROUNDS * PACE)),
                             {"old": started(OLD_LIBRARY), "shim": started(library)})
        return statistics.median(ratios(rounds["shim"], rounds["old"]))
