"""Families of real forks: who shares with whom, and that nothing of it is seen by a program."""

import json
import os
import subprocess
import time

import pytest

from beside import BUILD, HERE, LIBRARY, PYTHON, TESTS, needs_mounts, preloaded
from kin import BENCH, SHARES, USER, VALUES, Program, run
from support import Memcached, Process, free_port, in_queues, load

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may change its user")


@pytest.fixture
def server():
    with Memcached() as running:
        running.store(VALUES)
        yield running


ENDS = {
    "os._exit": "os._exit(0)",
    "sys.exit": "sys.exit(0)",
    "exit": "libc.exit(0)",
    "_Exit": "libc._Exit(0)",
    "quick_exit": "libc.quick_exit(0)",
    "exit_group": "libc.syscall(231, 0)",
}


@pytest.mark.parametrize("way", ENDS)
def test_a_child_leaves_its_connection_behind(server, stats, way):
    """Ten children in turn, which look one thing up and end: what the first has opened serves all."""
    before = server.stats()
    assert run(f"""
for number in range(10):
    pid = os.fork()
    if pid == 0:
        look_up(number)
        {ENDS[way]}
    assert os.waitpid(pid, 0)[1] == 0
""", server, **stats) == ""
    assert server.connections_since(before) == (1 if SHARES else 10)


def test_what_was_taken_is_in_use_once(server, stats):
    """A connection of another process that was used and closed is not counted as in use any more: else the process
    would never be quiet again, and give nothing."""
    with Program("""
in_child(look_up)
look_up()
time.sleep(1.1)
select.select([], [], [], 1.1)
say("quiet")
hear()
""", server, **stats) as program:
        assert program.hear() == "quiet"
        shown = subprocess.run([os.path.join(BUILD, "mcpool"), "stat", "--json"], check=True, capture_output=True,
                               text=True, env=preloaded(None, None, **stats), timeout=60).stdout
        assert [served["in_use"] for process in json.loads(shown)["processes"] for served in process["servers"]] == [0]


def test_a_killed_child_takes_its_own_only(server, stats):
    """A child is killed while it has an idle connection: the others still share theirs."""
    before = server.stats()
    assert run("""
in_child(look_up)
for number in range(5):
    pid = os.fork()
    if pid == 0:
        burst(2)
        os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    in_child(look_up)
""", server, **stats) == ""
    # One is taken and lost each time, another opened and lost, and the next child opens one.
    assert server.connections_since(before) <= (1 + 5 * 3 if SHARES else 16)
    wait_for_none(server)


def wait_for_none(server):
    """All connections end with the processes that had them."""
    deadline = time.monotonic() + 10
    while in_queues(server.port):
        assert time.monotonic() < deadline, "connections in a queue that no process has"
        time.sleep(0.05)


def test_all_ends_with_the_last_process(server, stats):
    """What is in the queues of a family is closed when its last process ends."""
    with Program("""
for _ in range(3):
    in_child(lambda: burst(4))
say("done")
hear()
""", server, **stats) as program:
        assert program.hear() == "done"
        if SHARES:
            assert in_queues(server.port) > 0
        program.tell()
        program.end()
    wait_for_none(server)


def test_forking_server(server, tmp_path):
    """socketserver.ForkingMixIn: a child for each request has the connection of the one before it."""
    port = free_port()
    environment = preloaded(LIBRARY, server.address, APP_SERVER=server.address, MCPOOL_STATS=str(tmp_path),
                            PYTHONPATH=os.path.join(TESTS, "clients", "apps"))
    before = server.stats()
    with Process([PYTHON, os.path.join(BENCH, "family", "forking.py"), str(port)], port, environment):
        assert load(port, 80, 4) == (80, 0, 0)
        opened = server.connections_since(before)
    assert opened <= (20 if SHARES else 80)


def test_multiprocessing_pool(server, stats):
    """A pool of processes that are replaced after five tasks each."""
    before = server.stats()
    assert run("""
import multiprocessing
with multiprocessing.get_context("fork").Pool(4, maxtasksperchild=5) as pool:
    pool.map(look_up, range(100), chunksize=1)
    pool.close()
    pool.join()
say("right")
""", server, **stats) == "right\n"
    assert server.connections_since(before) <= (12 if SHARES else 100)


LEAVES = {
    "setresuid": f"os.setresuid({USER}, {USER}, {USER})",
    "setuid": f"os.setuid({USER})",
    "seteuid": f"os.seteuid({USER})",
    "setgid": f"os.setgid({USER})",
    "setgroups": f"os.setgroups([{USER}])",
    "initgroups": f"os.initgroups('daemon', {USER})",
    "setreuid": f"os.setreuid({USER}, -1)",
    "syscall": f"libc.syscall(117, {USER}, {USER}, {USER})",
    "chroot": "os.chroot('/')",
}


@needs_root
@pytest.mark.parametrize("way", LEAVES)
def test_another_identity_neither_gives_nor_takes(server, stats, way):
    """A child that changes its identity after the fork opens its own connection, and leaves it to none."""
    with Program(f"""
in_child(look_up)
say("one is left")
hear()
def leave():
    {LEAVES[way]}
in_child(leave, look_up, look_up)
say("another was there")
hear()
look_up()
""", server, **stats) as program:
        program.hear()
        assert in_queues(server.port) == (1 if SHARES else 0)
        before = server.stats()
        program.tell()
        program.hear()
        assert server.connections_since(before) == 1
        assert in_queues(server.port) == (1 if SHARES else 0)
        before = server.stats()
        program.tell()
        program.end()
        assert server.connections_since(before) == (0 if SHARES else 1)


@needs_root
def test_an_identity_taken_before_the_fork_is_shared(server, stats):
    """A master that gives up its rights before it forks has a family as any other."""
    before = server.stats()
    assert run(f"""
look_up()
os.setgroups([])
os.setresgid({USER}, {USER}, {USER})
os.setresuid({USER}, {USER}, {USER})
for number in range(10):
    in_child(lambda: look_up(number))
""", server, **stats) == ""
    assert server.connections_since(before) <= (3 if SHARES else 11)


@needs_root
def test_children_of_different_users_stay_apart(server, stats):
    """A root master, as that of php-fpm or apache: children of two users are never given each other's connection."""
    with Program(f"""
def become(user):
    os.setresuid(user, user, user)
for number in range(6):
    in_child(lambda: become({USER} + number % 2), look_up, look_up)
say("done")
hear()
in_child(look_up)
""", server, **stats) as program:
        before = server.stats()
        assert program.hear() == "done"
        assert server.connections_since(before) == 6
        assert in_queues(server.port) == 0
        program.tell()
        program.end()
    assert server.connections_since(before) == 7 + 1    # stats_of() counts itself


@needs_mounts
@pytest.mark.parametrize("space", ["CLONE_NEWNET", "CLONE_NEWUSER"])
def test_a_new_namespace_is_another_identity(server, stats, space):
    """A child in a network namespace of its own is refused by the address, and is not given a way around."""
    flags = {"CLONE_NEWNET": 0x40000000, "CLONE_NEWUSER": 0x10000000}
    expected = "refused" if space == "CLONE_NEWNET" else "answered"
    assert run(f"""
in_child(look_up)
def apart():
    assert libc.unshare({flags[space]}) == 0
def attempt():
    try:
        look_up()
        say("answered")
    except OSError:
        say("refused")
in_child(apart, attempt)
in_child(look_up)
""", server, **stats) == f"{expected}\n"


CLOSES = {
    "close": "for fd in range(3, 1024):\n        libc.close(fd)",
    "closerange": "os.closerange(3, 1024)",
    "close_range": "libc.close_range(3, 0xffffffff, 0)",
    "closefrom": "libc.closefrom(3)",
    "closefrom-0": "os.closerange(0, 3); libc.closefrom(3); [os.open('/dev/null', 2) for _ in range(3)]",
    "syscall": "for fd in range(3, 1024):\n        libc.syscall(3, fd)",
    "close_range-by-number": "libc.syscall(436, 3, 0xffffffff, 0)",
}


@pytest.mark.parametrize("way", CLOSES)
def test_close_loops_of_a_daemon(server, stats, way):
    """Twice forked, with a session of its own and all fds closed: the numbers of new fds are as without the library,
    and lookups of the daemon and its children are right."""
    body = f"""
in_child(look_up)
def close_all():
    {CLOSES[way]}
reading, writing = os.pipe()
os.dup2(writing, 2)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        close_all()
        opened = [os.open("/dev/null", os.O_RDONLY) for _ in range(4)]
        os.set_inheritable(opened[0], True)
        for number in range(3):
            in_child(lambda: look_up(number))
            look_up(number)
        with open("{{place}}", "w") as file:
            file.write(" ".join(map(str, [*opened, *sorted(map(int, os.listdir("/proc/self/fd")))[:5]])))
        os.rename("{{place}}", "{{place}}.done")
    os._exit(0)
os.wait()
"""
    said = []
    for library in (None, LIBRARY):
        place = os.path.join(stats["MCPOOL_STATS"], "shim" if library else "plain")
        run(body.replace("{place}", place), server, library, **stats)
        deadline = time.monotonic() + 20
        while not os.path.exists(place + ".done"):
            assert time.monotonic() < deadline, "the daemon has failed"
            time.sleep(0.05)
        with open(place + ".done", encoding="ascii") as file:
            said.append(file.read())
    assert said[0] == said[1]


@pytest.mark.parametrize("way", ["close", "syscall"])
def test_a_close_loop_meets_what_it_would_meet(server, stats, way):
    """Each close() of a number that the program has not opened fails, although a queue may lie there."""
    call = {"close": "libc.close(fd)", "syscall": "libc.syscall(3, fd)"}[way]
    body = f"""
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))
for _ in range(3):
    in_child(look_up)
look_up()
results = [{call} for fd in range(3, 2048)]
say(results.count(0), results.count(-1))
for number in range(3):
    in_child(lambda: look_up(number))
    look_up(number)
say("right")
"""
    assert run(body, server, None, **stats) == run(body, server, **stats)


@pytest.mark.parametrize("limit", [16])
def test_every_number_of_the_program_is_free(server, stats, limit):
    """A program that may open few fds gets as many, and the same numbers, as without the library."""
    body = f"""
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
for _ in range(3):
    in_child(look_up)
opened = []
try:
    while True:
        opened.append(os.open("/dev/null", os.O_RDONLY))
except OSError as error:
    say(error.errno, opened)
for fd in opened:
    os.close(fd)
in_child(look_up)
look_up()
"""
    assert run(body, server, None, **stats) == run(body, server, **stats)


EXECS = {
    "run-keeping-fds": "subprocess.run([LS, '/proc/self/fd'], close_fds=False, check=True)",
    "run": "subprocess.run([LS, '/proc/self/fd'], check=True)",
    "system": "os.system(f'exec {LS} /proc/self/fd')",
    "posix_spawn": "os.waitpid(os.posix_spawn(LS, [LS, '/proc/self/fd'], os.environ), 0)",
    "exec": "in_child(lambda: os.execv(LS, [LS, '/proc/self/fd']))",
    "exec-of-a-member": "os.execv(LS, [LS, '/proc/self/fd'])",
}


@pytest.mark.parametrize("way", EXECS)
def test_another_program_sees_no_fd_of_ours(server, stats, way):
    """The fds of a program that a member starts are those that it would have."""
    body = f"""
import subprocess
LS = "/bin/ls"
os.environ.pop("LD_PRELOAD", None)
for _ in range(3):
    in_child(lambda: burst(3))
burst(3)
kept = os.dup(1)
os.set_inheritable(kept, True)
{EXECS[way]}
"""
    said = [run(body, server, library, **stats) for library in (None, LIBRARY)]
    assert said[0] == said[1] != ""


def test_own_fds_are_not_seen_by_a_member(server, stats):
    """What a program finds by the lowest free number is as without the library, before and after forks."""
    body = """
say(os.dup(0), os.dup(0))
for _ in range(3):
    in_child(lambda: burst(2), lambda: say(os.dup(0), os.pipe()))
look_up()
say(os.dup(0), os.pipe(), socket.socket().fileno())
"""
    assert run(body, server, None, **stats) == run(body, server, **stats)


FILTER = """
import seccomp
def filtered():
    rules = seccomp.SyscallFilter(seccomp.ALLOW)
    for name in ("socketpair", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg", "bind", "memfd_create"):
        rules.add_rule(seccomp.KILL_PROCESS, name)
    rules.load()
"""


def test_under_a_filter_nothing_is_made(server, stats):
    """A program under a filter that kills at each call that a queue needs forks and looks up as ever."""
    with Program(FILTER + """
filtered()
for number in range(5):
    in_child(lambda: look_up(number), lambda: look_up(number))
look_up()
say("right")
hear()
""", server, **stats) as program:
        assert program.hear() == "right"
        assert in_queues(server.port) == 0


def test_a_filter_after_the_first_fork_is_respected(server, stats):
    """A member that enters a sandbox makes no call on its queues any more."""
    assert run(FILTER + """
in_child(lambda: burst(3))
in_child(look_up, filtered, look_up, lambda: burst(5))
in_child(look_up)
filtered()
look_up()
in_child(look_up)
say("right")
""", server, **stats) == "right\n"


@pytest.mark.parametrize("share", [None, "always"])
def test_dockers_filter(server, stats, share):
    """Under Docker's default profile nothing is shared, unless the settings say that the calls are allowed."""
    filtered = [PYTHON, os.path.join(HERE, "filtered.py"), "only", "EPERM", os.path.join(HERE, "docker.txt"),
                "/usr/bin/env"]
    more = dict(stats, MCPOOL_SHARE=share) if share else stats
    before = server.stats()
    with Program("""
for number in range(10):
    in_child(lambda: look_up(number))
say("right")
hear()
""", server, before=filtered, **more) as program:
        assert program.hear() == "right"
        assert in_queues(server.port) == (1 if SHARES and share else 0)
        assert server.connections_since(before) == (1 if SHARES and share else 10)


def test_switched_off(server, stats):
    """MCPOOL_SHARE=off: every process for itself."""
    before = server.stats()
    with Program("""
for number in range(10):
    in_child(lambda: look_up(number))
say("right")
hear()
""", server, MCPOOL_SHARE="off", **stats) as program:
        assert program.hear() == "right"
        assert in_queues(server.port) == 0
        assert server.connections_since(before) == 10
