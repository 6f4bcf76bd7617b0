"""The library and the command on the oldest system with which they work: what was built here, and what was built
there. `make night` runs this."""

import pytest

# The command finds no library beside it here.
HERE = "export MCPOOL_LIBRARY=/srv/built/libmcpool.so PATH=/srv/built:$PATH\n"
THERE = """
mkdir /tmp/source /tmp/build
cd /srv/source
tar -c --exclude=./build --exclude=./.git . | tar -x -C /tmp/source
cd /tmp/source
make -s -j2 B=/tmp/build CFLAGS='-O2 -g -Werror' all /tmp/build/faults/scenes
cd /tmp
export MCPOOL_LIBRARY=/tmp/build/libmcpool.so PATH=/tmp/build:$PATH
"""
ORIGINS = [pytest.param(HERE, id="built here"), pytest.param(THERE, id="built there")]
LOG = "export MCPOOL_LOG=/tmp/log MCPOOL_LOG_LEVEL=debug\n"


def test_it_is_that_old(tree):
    assert tree.run("ldd --version | sed -n 1p").split()[-1] == "2.31"


@pytest.mark.parametrize("origin", ORIGINS)
def test_connections_are_pooled(tree, origin):
    assert int(tree.run("python3 /srv/inside/loop.py")) >= 120
    *seen, accepted = tree.run(origin + "mcpool run -- python3 /srv/inside/loop.py & wait $!\n").split()
    assert int(accepted) <= 5 and seen == []


@pytest.mark.parametrize("origin", ORIGINS)
def test_gunicorn_pools(tree, origin):
    serve = "cp /srv/source/packaging/examples/app.py .\n{} gunicorn -k gevent app:app >/dev/null 2>&1 &\n"
    visit = "python3 /srv/inside/visits.py\n"
    assert int(tree.run(serve.format("") + visit)) >= 60
    told = tree.run(origin + serve.format("mcpool run --") + visit + "mcpool stat\n")
    assert int(told.split()[0]) <= 6
    assert "libmcpool" in told and " 127.0.0.1:11211 " in told


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_program_without_libpthread_runs_as_without_us(tree, origin):
    """It lacks the functions of base/unwind.h, so nothing is pooled there."""
    build = "gcc -O1 -o alone /srv/inside/alone.c; ! ldd alone | grep libpthread\n"
    plain = tree.run(build + "./alone")
    assert plain == "3 END\n" * 5 or plain == "3 END\r\n" * 5
    if origin == HERE:
        told = tree.run(build + origin + LOG + "mcpool run -- ./alone; cat log")
        assert told.startswith(plain)
        assert "pooling nothing: the program has no libpthread" in told[len(plain):]


@pytest.mark.parametrize("program", ["perl -e 'print qq(hello\\n)'", "sh -c 'echo hello'"])
def test_other_programs_start(tree, program):
    assert tree.run(HERE + f"mcpool run -- {program}") == "hello\n"


def test_every_kind_of_call(tree):
    """The program of tests/faults makes them; it prints the same without and with the library."""
    scenes = "/tmp/build/faults/scenes 11211\n"
    plain = tree.run(THERE + scenes)
    told = tree.run(THERE + LOG + "export LD_PRELOAD=$MCPOOL_LIBRARY\n" + scenes + "unset LD_PRELOAD; cat log")
    assert told.startswith(plain) and "reused as" in told[len(plain):]
