"""A socket that another thread opens while a child is being made is open in the child as well."""

import pytest


@pytest.mark.parametrize("way", ["_Fork", "clone", "fork"])
def test_opened_while_a_child_is_made(bench, built, way):
    between = built("window.c", flags=("-shared", "-fPIC", "-DLIBRARY"))
    program = built("window.c", flags=("-Wl,--unresolved-symbols=ignore-all",))
    assert bench.unnoticed([program, bench.server.port, way], after=[between]).code == 0
    assert ": not kept: FORKED " in bench.log()
