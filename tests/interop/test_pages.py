"""How many more pages the kernel copies at a fork and in the child: each takes about a microsecond."""
import subprocess

import pytest

from support import LIBRARY, preloaded


# The page of the owner, variables in .data and .bss, and up to four pieces of code; how these lie is up to the
# compiler. With the variables among the large arrays, or _exit() looked up by each child, there were 26 to 29.
@pytest.mark.parametrize("used, settings, most", [
    (False, {"MCPOOL_SHARE": "off"}, 14), (True, {"MCPOOL_SHARE": "off"}, 16), (True, {}, 18)])
def test_pages_of_a_fork(bench, built, tmp_path, used, settings, most):
    program = built("../../bench/fork.c", flags=("-Wl,-z,now",))
    empty = built("/dev/null", flags=("-x", "c", "-shared", "-fPIC"))

    def faults(library):
        environment = preloaded(library, bench.server.address, MCPOOL_STATS=str(tmp_path), **settings)
        said = subprocess.run([program, str(bench.server.port if used else 0)], input="1\n50\n", env=environment,
                              check=True, capture_output=True, text=True, timeout=60).stdout
        return float(said.split()[-1])    # of the 50: the family is made at the first fork

    more = faults(LIBRARY) - faults(empty)
    assert more <= most
