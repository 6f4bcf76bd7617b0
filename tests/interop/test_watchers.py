"""Programs watched by a debugger, a tracer, or a checker of memory."""

import re
import subprocess

import pytest

from beside import LIBRARY, SCENES, run, without_numbers


def told_by_valgrind(outcome):
    """Without valgrind's remark on a system call that is meant to fail, once for most things sent."""
    remark = r"--\d+-- sigprocmask: unknown 'how' field -1\n"
    return outcome._replace(err=without_numbers(re.sub(remark, "", outcome.err)))


def told_of_fds():
    """Valgrind 3.24 reports with the same option every fd that is asked about and is not open."""
    version = subprocess.run(["valgrind", "--version"], check=True, capture_output=True, text=True).stdout
    major, minor = re.search(r"(\d+)\.(\d+)", version).groups()
    return "yes" if (int(major), int(minor)) < (3, 24) else "no"


# At the end of the scenes the pool closes everything; elsewhere it keeps idle connections.
@pytest.mark.parametrize("source, files", [("../faults/scenes.c", True), ("threads.c", False)])
def test_valgrind(bench, built, source, files):
    done = bench.pools_unnoticed(
        ["valgrind", "-q", "--error-exitcode=9", "--leak-check=full", "--show-leak-kinds=all",
         f"--track-fds={told_of_fds() if files else 'no'}", "--child-silent-after-fork=yes", built(source),
         bench.server.port],
        told=told_by_valgrind)
    assert done.err == ""


def test_strace(bench):
    trace = bench.folder / "trace"
    bench.pools_unnoticed(["strace", "-f", "-o", trace, SCENES, bench.server.port])
    assert "SO_COOKIE" in trace.read_text()


def gdb(bench, *commands):
    words = [word for command in commands for word in ("-ex", command)]
    return ["gdb", "-nx", "-batch", *words, "--args", SCENES, bench.server.port]


def test_gdb(bench):
    done = bench.pools_unnoticed(
        gdb(bench, "break main", "run", "bt", "continue", "quit $_exitcode"),
        told=lambda outcome: outcome._replace(out=without_numbers(outcome.out)))
    assert "Breakpoint 1, main" in done.out
    assert "exited normally" in done.out


def test_gdb_sees_the_program_behind_a_hook(bench):
    stopped = run(gdb(bench, "break connect", "run", "bt", "finish", "delete", "continue",
                      "quit $_exitcode"), bench.environment(LIBRARY))
    assert stopped.code == 0
    assert re.search(r"#0 .* connect .*(shim/|libmcpool\.so).*\n"
                     r"#1 .* dial_after .*\n(#.*\n)*#\d .* main ", stopped.out)
    assert "exited normally" in stopped.out
    assert "reused as" in bench.log()
