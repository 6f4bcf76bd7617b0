"""Programs with privileges that their caller lacks (AT_SECURE). There ld.so preloads only libraries that are
in a system directory and setuid; the shim does nothing even then."""

import pytest

from beside import LIBRARIES, LIBRARY, needs_mounts, run_among_mounts

# The arguments: the library, its directory, a client and its port, and how the client is made privileged. The
# user nobody runs the client, so it lies where that user may read. The log is printed after its output.
PRIVILEGED = r"""
library=$1 directory=$2 client=$3 port=$4 privilege=$5 preload=$6
mount -t tmpfs tmpfs /mnt
mkdir /mnt/upper /mnt/work
mkdir -m 1777 /mnt/log
mount -t overlay overlay "$directory" -o "lowerdir=$directory,upperdir=/mnt/upper,workdir=/mnt/work"
install -m 4755 "$library" "$directory/libmcpool.so"
install -m 755 "$library" /mnt/libmcpool.so
install -m 755 "$client" /mnt/client
$privilege /mnt/client
MCPOOL_LOG=/mnt/log/log setpriv --reuid nobody --regid nogroup --clear-groups \
    env LD_PRELOAD="$preload" /mnt/client "$port"
find /mnt/log -type f -exec cat {} +
"""


@pytest.fixture
def privileged(bench, built):
    """A function that runs the client with a privilege as user nobody: what it and the shim say, and how
    many connections it opened."""
    client = built("turns.c", "../integration/plugin.c")

    def run_privileged(privilege, preload):
        before = bench.server.stats()
        done = run_among_mounts(PRIVILEGED, LIBRARY, LIBRARIES, client, bench.server.port, privilege,
                                preload, environment=bench.environment())
        return done, bench.server.connections_since(before)
    return run_privileged


@needs_mounts
def test_shim_is_at_work_without_privileges(privileged):
    done, connections = privileged("true", "libmcpool.so")
    assert done.out.startswith("secure 0, shim 1\n") and "reused as" in done.out
    assert (done.code, done.err, connections) == (0, "", 1)


PRIVILEGES = ["chmod u+s", "chmod g+s", "setcap cap_net_raw+ep"]


@needs_mounts
@pytest.mark.parametrize("privilege", PRIVILEGES)
def test_shim_is_inert(privileged, privilege):
    done, connections = privileged(privilege, "libmcpool.so")
    assert (done, connections) == ((0, "secure 1, shim 1\n", ""), 3)


@needs_mounts
@pytest.mark.parametrize("privilege", PRIVILEGES)
def test_shim_is_ignored_elsewhere(privileged, privilege):
    done, connections = privileged(privilege, "/mnt/libmcpool.so")
    assert (done, connections) == ((0, "secure 1, shim 0\n", ""), 3)
