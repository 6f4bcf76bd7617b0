"""Asynchronous I/O by liburing and libaio, which make their system calls themselves: programs that
are linked with them, and plugins that bring them along."""

import pytest

KINDS = ("ring", "params", "setup", "aio")
LIBRARIES = ("-Wl,--no-as-needed", "-luring", "-laio")
PLUGIN = ("-shared", "-fPIC", "-DPLUGIN")


def expect_no_foreign_reply(bench, command, kind):
    plain = bench.unnoticed(command)
    if plain.code == 77:
        pytest.skip(plain.out)
    assert plain.code == 0 and plain.out.count("reply ") == 61 and "another" not in plain.out
    assert f": not kept: {'UNTRACKED_IO' if kind == 'aio' else 'IO_URING'} " in bench.log()


@pytest.mark.parametrize("kind", KINDS)
def test_pending_receive(bench, built, kind):
    expect_no_foreign_reply(bench, [built("rings.c", flags=LIBRARIES), bench.server.port, kind], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_pending_receive_of_a_plugin(bench, built, kind):
    host = built("rings.c", flags=("-DHOST",))
    plugin = built("rings.c", flags=(*PLUGIN, *LIBRARIES))
    expect_no_foreign_reply(bench, [host, bench.server.port, kind, plugin], kind)


@pytest.mark.parametrize("where", ["program", "plugin"])
def test_functions_of_the_same_name_are_left_alone(bench, built, where):
    if where == "program":
        command = [built("namesake.c", flags=("-rdynamic",))]
    else:
        command = [built("rings.c", flags=("-DHOST",)), 0, "own", built("namesake.c", flags=PLUGIN)]
    assert bench.unnoticed(command).out == "1.5 a 1 2 3 4 5 6\nmy own\n"
