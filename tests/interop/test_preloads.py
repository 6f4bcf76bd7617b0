"""Other preloaded libraries, before the shim and after it."""

import os
import time

import pytest

from beside import HERE, LIBRARIES, PYTHON, SCENES

JEMALLOC = f"{LIBRARIES}/libjemalloc.so.2"
TCMALLOC = f"{LIBRARIES}/libtcmalloc_minimal.so.4"
EATMYDATA = f"{LIBRARIES}/libeatmydata.so"
FAKETIME = f"{LIBRARIES}/faketime/libfaketimeMT.so.1"

# With FAKETIME: how far the clock is off, and how fast it runs.
PRELOADS = {
    "jemalloc": ([JEMALLOC], ""),
    "tcmalloc": ([TCMALLOC], ""),
    "eatmydata": ([EATMYDATA], ""),
    "past": ([FAKETIME], "-15d"),
    "future": ([FAKETIME], "+15d"),
    "fast": ([FAKETIME], "+0 x10"),
    "slow": ([FAKETIME], "-15d x0.5"),
    # jemalloc reads the clock as it starts, and libfaketime then allocates: they deadlock without us.
    "all but jemalloc": ([TCMALLOC, EATMYDATA, FAKETIME], "-15d"),
    "all but faketime": ([JEMALLOC, TCMALLOC, EATMYDATA], ""),
}
CLIENTS = {"scenes": [SCENES], "python": [PYTHON, os.path.join(HERE, "client.py")]}


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("preload", PRELOADS)
def test_beside_another_preload(bench, preload, client, place):
    libraries, clock = PRELOADS[preload]
    done = bench.pools_unnoticed([*CLIENTS[client], bench.server.port], FAKETIME=clock,
                                 **{place: libraries})
    # Where ld.so warns of a missing library.
    assert done.err == ""


@pytest.mark.parametrize("place", ["before", "after"])
def test_the_log_has_the_time_of_the_day(bench, place):
    bench.pools_unnoticed([SCENES, bench.server.port], FAKETIME="-15d", **{place: [FAKETIME]})
    assert abs(float(bench.log().split()[0]) - time.time()) < 60


@pytest.mark.parametrize("place", ["before", "after"])
def test_clock_that_goes_back(bench, place):
    """Python would wait for ever under it."""
    bench.pools_unnoticed([SCENES, bench.server.port], FAKETIME="+0 x-1", SCENES_WITHOUT_WAITS="1",
                          **{place: [FAKETIME]})


@pytest.mark.parametrize("place", ["before", "after"])
def test_clock_that_steps_whenever_it_is_asked(bench, place):
    """Before us: libfaketime's destructor has run when we write our summary, and reading its clock then
    crashes."""
    bench.pools_unnoticed([SCENES, bench.server.port], FAKETIME="+0 i1", **{place: [FAKETIME]})


POLLS = """
import select, socket, sys
for _ in range(2):
    with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as client:
        client.sendall(b"get nothing\\r\\n")
        assert client.recv(16) == b"END\\r\\n"
print(select.poll().poll(2500))
"""


@pytest.mark.parametrize("place", ["before", "after"])
def test_clock_that_stands(bench, place):
    """A wait ends all the same: it is cut, and what its pieces took counts."""
    bench.pools_unnoticed([PYTHON, "-c", POLLS, bench.server.port], FAKETIME="2020-01-01 00:00:00",
                          MCPOOL_IDLE_TIMEOUT="1s", **{place: [FAKETIME]})
