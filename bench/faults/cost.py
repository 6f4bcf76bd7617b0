"""What the library costs a web server, beside an older one."""

import contextlib
import shutil
import statistics

from lib.cases import OLD, OLD_LIBRARY, PACE, Missing, Row, Server
from lib.rounds import interleaved, ratios
from lib.servers import checked_load, loaded, serving

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
                requests, seconds = loaded(server.process.pid, port, 4)
                return requests / seconds
            return measure

        rounds = interleaved(max(3, round(ROUNDS * PACE)),
                             {"old": started(OLD_LIBRARY), "shim": started(library)})
        return statistics.median(ratios(rounds["shim"], rounds["old"]))
