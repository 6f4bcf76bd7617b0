"""Objects that no hook can reach: in a namespace of dlmopen(), or loaded with RTLD_DEEPBIND."""

import pytest

# The turns that elsewhere.c makes: its own, and those of the object.
CONNECTS = 19
CONNECTS_THERE = 3
# One connection at first, and one after each that the object touched.
OPENED = 5


@pytest.mark.parametrize("how", ["namespace", "deepbind"])
def test_objects_without_hooks(bench, built, how):
    plugin = built("../integration/plugin.c", flags=("-shared", "-fPIC"))
    before = bench.server.stats()
    bench.pools_unnoticed([built("elsewhere.c"), bench.server.port, plugin, how])
    without, opened = CONNECTS + CONNECTS_THERE, OPENED + CONNECTS_THERE
    assert bench.server.connections_since(before) == without + opened
    log = bench.log()
    assert f"connects {CONNECTS}, reused {CONNECTS - OPENED}, opened {OPENED}" in log
    for reason in ("UNSOLICITED", "UNSEEN_BYTES"):
        assert log.count(f"info: {bench.server.address}: not kept: {reason}") == 1
    assert log.count(f"info: {bench.server.address}: not kept: OTHER_SOCKET") >= 1
