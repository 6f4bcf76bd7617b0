"""A libc that lacks functions: older than this machine's, or older than any."""

import concurrent.futures
import os
import re

import pytest

from beside import BUILD, LIBRARY, SCENES, run
from support import free_port
from symbols import NEWER, libc_path, listed_hooks, output

HOOKS, _ = listed_hooks()
# Functions called here that nothing can replace, and that every libc has.
INDISPENSABLE = {"fdopen", "popen", "system", "poll", "ppoll", "__poll_chk", "__ppoll_chk", "select", "pselect"}
PROGRAMS = os.path.abspath(os.path.join(BUILD, "tests/programs"))
CALLERS = ("read_and_write,in_pieces,as_messages,many_messages_at_once,fortified,"
           "at_offsets,from_a_file,through_a_pipe,handed_to_a_neighbour,duplicates,flags_of_fds,"
           "a_server_of_its_own,identities_that_cannot_be_had,epoll_level,shut_for_writing,shells")


@pytest.fixture
def absent(built):
    # -O2, for the jump.
    return built("absent.c", flags=("-shared", "-fPIC", "-O2"))


def asking(bench, name):
    """The variables of absent.c: NAME is absent for good."""
    return {"ABSENT": name, "ABSENT_TOLD": str(bench.folder / "told")}


def asking_at_first(bench, name):
    """NAME is absent when it is first called. What looks it up later finds it, as what a plugin brings
    along."""
    symbols = re.findall(rf" {name}(?:@|$)", output("nm", "-D", "--defined-only", libc_path()), re.MULTILINE)
    return asking(bench, name) | {"ABSENT_FIRST": str(len(symbols))}


def pools_without(name, bench, absent, *command):
    return bench.pools_unnoticed(command, before=[absent], **asking_at_first(bench, name))


@pytest.mark.parametrize("name", ["_pthread_cleanup_push", "_pthread_cleanup_pop", "pthread_testcancel"])
def test_nothing_is_pooled_without_libpthread(bench, absent, name):
    """Before glibc 2.34 a program may lack it."""
    bench.unnoticed([SCENES, bench.server.port], before=[absent], **asking(bench, name))
    assert (bench.folder / "told").exists()
    assert "pooling nothing: the program has no libpthread" in bench.log() and "reused as" not in bench.log()


@pytest.mark.parametrize("name", sorted(HOOKS - INDISPENSABLE))
def test_any_function_may_be_absent(bench, absent, name):
    pools_without(name, bench, absent, SCENES, bench.server.port)


@pytest.mark.parametrize("name", sorted(NEWER | {"preadv64v2", "pwritev64v2"}))
def test_what_is_absent_is_a_system_call(bench, built, absent, name):
    done = pools_without(name, bench, absent, built("newer.c"), bench.server.port,
                         bench.folder / "file")
    assert (bench.folder / "told").exists()
    assert "wrote 3, read 3 abc\nwaited 1, status 7\n" in done.out


@pytest.mark.parametrize("name", sorted(hook for hook in HOOKS if re.match("aio_|lio_", hook)))
def test_what_a_plugin_brought_along_is_found(bench, built, absent, name):
    """As librt before glibc 2.34, which is not there at the start."""
    done = bench.unnoticed([built("asynchronous.c"), bench.folder / "file"], before=[absent],
                           **asking_at_first(bench, name))
    assert done.out == "written 8 8 8 8, read 8 8 8 8\n" and (bench.folder / "told").exists()


def test_what_is_called_may_be_absent(bench, absent):
    """Each function in a run of its own. They mostly sleep, so several run at a time."""
    command = [PROGRAMS, CALLERS, bench.server.port, free_port()]
    bench.server.store({key: f"value-of-{key}" for key in ("one", "two", "three", "four")})
    plain = run(command, bench.environment())

    def is_unnoticed(name):
        log = bench.folder / name
        done = run(command, bench.environment(absent, LIBRARY, **asking_at_first(bench, name))
                   | {"MCPOOL_LOG": str(log)})
        return done == plain and "reused as" in log.read_text()

    names = sorted(HOOKS - INDISPENSABLE)
    with concurrent.futures.ThreadPoolExecutor(8) as threads:
        unnoticed = dict(zip(names, threads.map(is_unnoticed, names)))
    assert [name for name in names if not unnoticed[name]] == []
