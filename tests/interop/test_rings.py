"""Asynchronous I/O by liburing and libaio, which make their system calls themselves: programs that
are linked with them, and plugins that bring them along."""

import pytest

from beside import HERE, PYTHON

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


@pytest.mark.parametrize("name", ["io_uring_setup", "io_uring_queue_init",
                                  "io_uring_queue_init_params", "io_uring_queue_init_mem"])
def test_versions_of_others(bench, built, name):
    library = built("newring.c", flags=("-shared", "-fPIC", "-DLIBRARY",
                                        f"-Wl,--version-script={HERE}/newring.map"))
    program = built("newring.c", flags=("-Wl,--no-as-needed", str(library)))
    plain = bench.unnoticed([program, bench.server.port, name])
    if plain.code == 77:
        pytest.skip(plain.out)
    assert plain.code == 0 and ": not kept: IO_URING " in bench.log()


BY_DLSYM = """
import ctypes, os, socket, sys
uring = ctypes.CDLL("liburing.so.2")
if uring.io_uring_queue_init(4, ctypes.create_string_buffer(4096), 0) != 0:
    print("no ring may be made here")
    sys.exit(77)
with socket.create_connection(("127.0.0.1", int(sys.argv[1]))) as fd:
    fd.sendall(b"get a\\r\\n")
    assert fd.recv(64) == b"END\\r\\n"
"""


def test_functions_found_by_dlsym(bench):
    plain = bench.unnoticed([PYTHON, "-c", BY_DLSYM, bench.server.port])
    if plain.code == 77:
        pytest.skip(plain.out)
    assert plain.code == 0 and ": not kept: IO_URING " in bench.log()


@pytest.mark.parametrize("where", ["program", "plugin"])
def test_functions_of_the_same_name_are_left_alone(bench, built, where):
    if where == "program":
        command = [built("namesake.c", flags=("-rdynamic",))]
    else:
        command = [built("rings.c", flags=("-DHOST",)), 0, "own", built("namesake.c", flags=PLUGIN)]
    assert bench.unnoticed(command).out == "1.5 a 1 2 3 4 5 6\nmy own\n"
