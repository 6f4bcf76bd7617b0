"""Clocks that jump while a connection idles. Time that the host was suspended counts as idle time."""

import subprocess

import pytest
from support import LIBRARY, preloaded

DAY = 86400
WAITS = "poll", "select", "epoll_wait", "accept"


@pytest.fixture(scope="module")
def outcome(built, server):
    """A function that tells what the connect() after the jump did."""
    program = built("clocks.c", flags=("-rdynamic",))

    def run(clock, seconds, where):
        return subprocess.run([program, str(server.port), clock, str(seconds), where],
                              env=preloaded(LIBRARY, str(server.port)), stdout=subprocess.PIPE,
                              text=True, check=True, timeout=60).stdout
    return run


@pytest.mark.parametrize("where", ("before", *WAITS))
def test_a_suspension_counts(outcome, where):
    assert outcome("boot", 60, where) == "opened\n"


def test_a_short_suspension_is_a_short_idle_time(outcome):
    assert outcome("boot", 20, "poll") == "reused\n"


@pytest.mark.parametrize("seconds", [DAY, -DAY])
@pytest.mark.parametrize("where", ["before", "poll"])
def test_the_wall_clock_does_not_matter(outcome, seconds, where):
    assert outcome("wall", seconds, where) == "reused\n"
