"""Programs under a seccomp filter that may not allow what the shim needs."""

import os
import re
import signal
import subprocess

import pytest

from beside import HERE, LIBRARY, PYTHON, SCENES, run

# Every system call that the shim may make for itself. openat, write and close also write the log; ppoll,
# pwritev2, rt_sigpending and rt_sigtimedwait do so where the log is stderr. getdents64, getresuid, kill, mkdirat,
# newfstatat, pwrite64, read and unlinkat are for the counters; epoll_pwait, gettid, ppoll, pselect6, rt_sigaction and
# rt_tgsigqueueinfo are for waits. futex, clock_gettime, getcwd and prlimit64 are libc's.
SHIM_CALLS = set("clock_gettime close connect dup3 epoll_ctl epoll_pwait fcntl futex getcwd "
                 "getdents64 getpeername getpid getresuid getsockopt gettid kill madvise mkdirat mmap "
                 "newfstatat openat ppoll prlimit64 pselect6 pwrite64 pwritev2 read recvfrom rt_sigaction "
                 "rt_sigpending rt_sigprocmask rt_sigtimedwait rt_tgsigqueueinfo sendto setsockopt shutdown socket "
                 "socketpair unlinkat write".split())
# Those for a family, which is not made under a filter, unless MCPOOL_SHARE is `always`.
FAMILY_CALLS = set("bind getegid geteuid getgroups getresgid getresuid getsockname ioctl munmap recvmsg "
                   "sendmsg".split())
SOL_SOCKET, SO_COOKIE = 1, 57
IPPROTO_TCP, TCP_INFO = 6, 11


def filtered(*arguments):
    return [PYTHON, os.path.join(HERE, "filtered.py"), *arguments]


@pytest.mark.parametrize("action, allowed", [("EPERM", "docker.txt"), ("kill", "system-service.txt")])
def test_common_filter(bench, action, allowed):
    only = filtered("only", action, os.path.join(HERE, allowed))
    assert "Seccomp:\t2\n" in run([*only, "/bin/cat", "/proc/self/status"], os.environ).out
    bench.pools_unnoticed([*only, SCENES, bench.server.port])


@pytest.mark.parametrize("level, option", [(SOL_SOCKET, SO_COOKIE), (IPPROTO_TCP, TCP_INFO)])
def test_nothing_is_pooled_without_proof(bench, level, option):
    done = bench.unnoticed([*filtered("refuse", level, option), SCENES, bench.server.port])
    assert done.code == 0
    assert "pooling" in bench.log()
    assert not re.search(": kept|reused as", bench.log())


def calls_of(command, environment, trace):
    """The names of the system calls that a program makes."""
    subprocess.run(["strace", "-f", "-o", trace, *command], check=True, env=environment)
    return set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))


@pytest.fixture(params=["scenes", "turns"])
def program(request, bench, built):
    """The command, and the system calls that it makes without the shim."""
    path = SCENES if request.param == "scenes" else built("turns.c", "../integration/plugin.c")
    command = [path, str(bench.server.port)]
    return command, calls_of(command, bench.environment(), bench.folder / "trace")


def names(bench, calls):
    path = bench.folder / "names"
    path.write_text(" ".join(calls))
    return path


def test_no_call_but_the_listed_ones(bench, program):
    command, calls = program
    listed = filtered("only", "kill", names(bench, calls | SHIM_CALLS))
    # turns prints whether the shim is there.
    bench.pools_unnoticed([*listed, *command], told=lambda outcome: outcome._replace(out=""))


def test_the_list_is_needed(bench, program):
    command, calls = program
    unlisted = filtered("only", "kill", names(bench, calls))
    assert run([*unlisted, *command], bench.environment()).code == 0
    assert run([*unlisted, *command], bench.environment(LIBRARY)).code == -signal.SIGSYS


@pytest.fixture
def family(bench):
    """As program, of one whose processes may share connections."""
    command = [SCENES, str(bench.server.port)]
    return command, calls_of(command, bench.environment(), bench.folder / "trace")


def under_filter(bench, calls, command, **settings):
    only = filtered("only", "kill", names(bench, calls))
    return run([*only, *command], bench.environment(LIBRARY) | settings)


def test_a_family_makes_no_call_but_the_listed_ones(bench, family):
    command, calls = family
    done = under_filter(bench, calls | SHIM_CALLS | FAMILY_CALLS, command, MCPOOL_SHARE="always",
                        SCENES_SHARED="1")
    assert (done.code, done.err) == (0, "")


def test_a_family_needs_its_list(bench, family):
    command, calls = family
    done = under_filter(bench, calls | SHIM_CALLS, command, MCPOOL_SHARE="always")
    assert done.code == -signal.SIGSYS


def test_there_is_no_family_under_a_filter(bench, family):
    command, calls = family
    done = under_filter(bench, calls | SHIM_CALLS, command)
    assert (done.code, done.err) == (0, "")
    done = under_filter(bench, calls | SHIM_CALLS, command, SCENES_SHARED="1")
    assert "taken == port" in done.err


# A filter may kill a program for a call of ours that has nothing to do there.
WITHOUT_CONNECTION = {
    "changes its identity": ("import os, socket; socket.socket(); os.setgid(os.getgid())", {"MCPOOL_DISABLE": "1"}),
    "has a child without handlers": ("import ctypes, os\nif ctypes.CDLL(None)._Fork() == 0: os._exit(0)", {}),
}


@pytest.mark.parametrize("what", WITHOUT_CONNECTION)
def test_a_program_without_connections_is_not_asked_for_one(bench, what):
    text, more = WITHOUT_CONNECTION[what]
    environment = bench.environment(LIBRARY, **more)
    assert "getsockopt" not in calls_of([PYTHON, "-c", text], environment, bench.folder / "trace")
