"""How many more pages the kernel copies at a fork and in the child: each takes about a microsecond."""
import subprocess

import pytest

from support import LIBRARY, preloaded


# In a child: its own stack, the page of the owner, variables in .data and .bss, and up to four pieces of code.
@pytest.mark.parametrize("used, settings, most", [
    (False, {"MCPOOL_SHARE": "off"}, 12), (True, {"MCPOOL_SHARE": "off"}, 13), (True, {}, 16)])
def test_pages_of_a_fork(bench, built, tmp_path, used, settings, most):
    program = built("pages.c", flags=("-Wl,-z,now",))
    empty = built("/dev/null", flags=("-x", "c", "-shared", "-fPIC"))

    def faults(library):
        environment = preloaded(library, bench.server.address, MCPOOL_STATS=str(tmp_path), **settings)
        return float(subprocess.run([program, str(bench.server.port if used else 0)], env=environment, check=True,
                                    capture_output=True, text=True, timeout=60).stdout)

    more = faults(LIBRARY) - faults(empty)
    assert more <= most
