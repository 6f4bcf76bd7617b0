"""How much stack the calls of a client take: a thread may have little, or run on a signal stack."""
import subprocess

import pytest

from support import LIBRARY, preloaded

CALLS = 1600   # bytes, from socket() to close(); see libmcpool(7), NUMBERS
MOST = 2800    # with a log, or in a wait
CUT = 3584     # in a wait that is cut


@pytest.mark.parametrize("kind,log,most", [
    ("first", False, CALLS), ("again", False, CALLS), ("noreply", False, CALLS), ("owed", False, CALLS),
    ("first", True, MOST), ("again", True, MOST), ("poll", False, MOST), ("cut", False, CUT)])
def test_stack(bench, built, tmp_path, kind, log, most):
    environment = preloaded(LIBRARY, bench.server.address, MCPOOL_STATS=str(tmp_path),
                            MCPOOL_LOG=str(tmp_path / "log") if log else "", MCPOOL_LOG_LEVEL="debug")
    environment["LD_BIND_NOW"] = "1"    # the look-up of a symbol at its first call takes a kilobyte
    done = subprocess.run([built("stack.c"), str(bench.server.port), kind], env=environment, check=True,
                          capture_output=True, text=True, timeout=60)
    taken, reply = done.stdout.split(" ", 1)
    assert reply in ("END\n", "VALUE k 0 1\nx\nEND\n")
    assert int(taken) <= most
