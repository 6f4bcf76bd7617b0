"""The system calls of a program that opens a connection for every get, and gets a pooled one."""

import re

import pytest

from beside import LIBRARY, PYTHON, run

# A call that nothing else makes separates the turns.
PROGRAM = """
import os, socket, sys
port = int(sys.argv[1])
for _ in range(6):
    os.getpriority(os.PRIO_PROCESS, 0)
    with socket.socket() as fd:
        fd.connect(("127.0.0.1", port))
        fd.sendall(b"get a\\r\\n")
        assert fd.recv(64) == b"END\\r\\n"
os.getpriority(os.PRIO_PROCESS, 0)
"""

# In this order; the calls of the get itself are in between.
HIT = ["fcntl F_DUPFD_CLOEXEC", "getsockopt TCP_INFO", "dup3", "sendto", "recvfrom", "close"]

# Probes whether the address and the request can be read, where that is not known: at most one each.
LOOK = "rt_sigprocmask"
LOOKS = 2


def named(line):
    """The system call's name and, for those that do many things, its operation."""
    call, arguments = re.match(r"(?:\d+ +)?(\w+)\((.*)", line).groups()
    words = re.findall(r"F_DUPFD_CLOEXEC|F_DUPFD|F_[GS]ETF[LD]|TCP_INFO|FIONBIO|SO_\w+", arguments)
    return " ".join([call, *words])


def turns(trace):
    calls = [named(line) for line in trace.splitlines() if re.match(r"(?:\d+ +)?\w+\(", line)]
    marks = [at for at, call in enumerate(calls) if call == "getpriority"]
    return [calls[mark + 1:following] for mark, following in zip(marks, marks[1:])]


def trace(bench, command, said=None, **settings):
    """What strace tells of COMMAND under the shim, whose input is SAID."""
    path = bench.folder / "trace"
    environment = {**bench.environment(LIBRARY), "MCPOOL_LOG": "", **settings}
    preload = environment.pop("LD_PRELOAD")
    done = run(["strace", "-f", "-E", f"LD_PRELOAD={preload}", "-o", path, *command], environment, said)
    assert done.code == 0, done.err
    return path.read_text()


def traced(bench, *command):
    """The turns of COMMAND under the shim that get a connection from the pool and have a spare: those
    after the first, which opens the connection, and the second, which makes the spare."""
    return turns(trace(bench, command, MCPOOL_STATS="off"))[2:]


def test_a_hit_makes_no_other_system_call(bench):
    for turn in traced(bench, PYTHON, "-c", PROGRAM, bench.server.port):
        assert [call for call in turn if call != LOOK] == HIT
        assert turn.count(LOOK) <= LOOKS


def test_a_hit_after_a_child_makes_no_other_system_call(bench):
    program = f"import subprocess\nsubprocess.run(['true'], check=True)\n{PROGRAM}"
    for turn in traced(bench, PYTHON, "-c", program, bench.server.port):
        assert [call for call in turn if call != LOOK] == HIT


@pytest.mark.parametrize("way, asks", [("vfork", 0), ("nested", 0), ("clone", 0), ("killed", 0), ("failing", 0),
                                       ("failing-clone", 0), ("staying", 1)])
def test_a_child_in_our_memory_counts_while_it_is_there(bench, built, way, asks):
    """Only then does each hook ask whether it is in the child."""
    hit = [HIT[0].replace("_CLOEXEC", ""), *HIT[1:]]
    for turn in traced(bench, built("sharers.c"), bench.server.port, way):
        assert [call for call in turn if call != "getpid"] == hit
        assert bool(asks) == ("getpid" in turn)


# Under gevent every socket is made non-blocking, and then waited for. Here a marker comes before each client.
CLIENTS = """
import gevent.monkey
gevent.monkey.patch_all()
import os, sys
address = "127.0.0.1", int(sys.argv[1])
def pymemcache():
    from pymemcache.client.base import Client
    client = Client(address)
    assert client.get("a") is None
    client.close()
def python_memcached():
    from memcache import Client
    client = Client(["%s:%d" % address])
    assert client.get("a") is None
    client.disconnect_all()
for _ in range(6):
    os.getpriority(os.PRIO_PROCESS, 0)
    globals()[sys.argv[2]]()
os.getpriority(os.PRIO_PROCESS, 0)
"""

# What the client and gevent do to the socket until then.
OWN = ["ioctl FIONBIO", "getsockopt SO_ERROR", "getsockopt SO_SNDBUF"]


@pytest.mark.parametrize("client", ["pymemcache", "python_memcached"])
def test_a_hit_under_gevent_asks_for_no_flags(bench, client):
    """The shim knows the flags that the client sets. The spare was made non-blocking by the client before."""
    for turn in traced(bench, PYTHON, "-c", CLIENTS, bench.server.port, client):
        calls = turn[:turn.index("sendto")]
        calls = calls[calls.index(HIT[0]):]
        assert [call for call in calls if call not in [*OWN, LOOK]] == [HIT[0], "fcntl F_SETFL", *HIT[1:3]]
        assert calls.count(LOOK) <= LOOKS


@pytest.mark.parametrize("kind, looks", [("variables", 0), ("heap", 0), ("stack", 0), ("mapped", 2)])
def test_known_memory_is_not_asked_for(bench, built, kind, looks):
    for turn in traced(bench, built("memory.c"), bench.server.port, kind):
        assert [call for call in turn if call != LOOK] == [HIT[0].replace("_CLOEXEC", ""), *HIT[1:]]
        assert turn.count(LOOK) == looks


def test_memory_that_was_given_back_is_an_error(bench, built):
    plain = bench.pools_unnoticed([built("memory.c"), bench.server.port, "given-back"])
    assert plain.out == "EFAULT\n"


PIECES = {"poll": "ppoll", "ppoll": "ppoll", "select": "pselect6", "pselect": "pselect6",
          "epoll_wait": "epoll_pwait", "epoll_pwait2": "epoll_pwait2"}


def waited(bench, built, call, ms, *threads, **settings):
    """The system calls of a wait that begins when counters have to be written within a second. The other
    thread only pauses. The poll() family asks whether its fds can be read, cut or not."""
    lines = trace(bench, [built("cut.c"), bench.server.port, call, ms, *threads], **settings)
    return [name for name in turns(lines)[-1] if name not in ("futex", "pause")]


@pytest.mark.parametrize("threads", [[], ["threads"]])
@pytest.mark.parametrize("call", PIECES)
def test_a_cut_wait_makes_few_calls_more(bench, built, call, threads):
    """The signal mask twice, and one piece more; epoll_pwait() needs to know the pending signals, too. A thread
    asks for its id once in its life."""
    calls = waited(bench, built, call, 1500, *threads)
    piece = PIECES[call]
    first, second = (at for at, name in enumerate(calls) if name == piece)
    assert calls[:first] == ["rt_sigprocmask"] + ["gettid"] * bool(threads)
    assert calls[second + 1:] == ["rt_sigprocmask"]
    between = calls[first + 1:second]
    end_of_work = len(between) - between[::-1].index("rt_sigprocmask")
    assert between[0] == "rt_sigprocmask" and "pwrite64" in between[:end_of_work]
    assert between[end_of_work:] == ["rt_sigpending"] * piece.startswith("epoll")


@pytest.mark.parametrize("call", PIECES)
def test_a_wait_that_ends_before_the_work_is_not_cut(bench, built, call):
    assert waited(bench, built, call, 100) in ([call], [PIECES[call]])


@pytest.mark.parametrize("call", PIECES)
def test_a_dry_run_cuts_no_wait(bench, built, call):
    calls = waited(bench, built, call, 1500, MCPOOL_DRY_RUN="on")
    assert calls[-1] in (call, PIECES[call])
    assert calls.count(PIECES[call]) + calls.count(call) * (call != PIECES[call]) == 1


# The child asks whether it has the ids of its family, then at its end whether it is a child, and for the time.
IDS = ["getresuid", "getresgid"]
AT_END = ["getpid", "clock_gettime"]

# Its copy of its parent's idle connection is closed, and it counts anew.
PARENTS = ["getsockopt SO_COOKIE", "close", "mmap"]


@pytest.mark.parametrize("used, parents", [(False, []), (True, PARENTS)])
def test_a_child_that_uses_nothing_makes_few_calls(bench, built, used, parents):
    """Its end looks after the queues of its family, of which none was ever used."""
    lines = trace(bench, [built("../../bench/fork.c"), bench.server.port if used else 0], "2\n",
                  MCPOOL_SHARE="always").splitlines()
    pid = lines[0].split()[0]
    children = {line.split()[0] for line in lines} - {pid}
    assert len(children) == 2
    for child in children:
        calls = [named(line) for line in lines if re.match(rf"{child} +\w+\(", line)]
        ours = calls.index(IDS[0])
        # Since glibc 2.41 fork() blocks the signals.
        assert calls[:ours] in (["set_robust_list"], ["set_robust_list", "rt_sigprocmask"])
        assert calls[ours:] == [*IDS, *parents, *AT_END, "exit_group"]
