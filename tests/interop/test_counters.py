"""The program does not notice whatever is done to the file of counters, and however often it is written."""

import os
import re
import subprocess
import sys
import time

import pytest

from beside import LIBRARY, PYTHON, TESTS, die_with_parent

sys.path.insert(0, os.path.join(TESTS, "cli"))
from observed import mcpool

# turns() makes turns, go_on() enough of them for the file to be written several times.
PROGRAM = """
import os, resource, select, signal, socket, sys, time
directory = os.environ["MCPOOL_STATS"]
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
def turns(number=1):
    for _ in range(number):
        with socket.socket() as fd:
            fd.connect(("127.0.0.1", int(sys.argv[1])))
            fd.sendall(b"get a\\r\\n")
            assert fd.recv(64) == b"END\\r\\n"
def file():
    names = [name for name in os.listdir(directory) if name.startswith(f"{os.getpid()}-")]
    assert len(names) == 1
    return f"{directory}/{names[0]}"
def go_on():
    for _ in range(2):
        turns(5)
        select.select([], [], [], 1.1)
    turns(5)
"""


@pytest.fixture
def counted(bench, tmp_path):
    """A function that runs a program with its counters in the folder it is given."""
    folder = tmp_path / "stats"
    folder.mkdir()
    folder.chmod(0o1777)
    for parent in folder.parents:
        if not os.stat(parent).st_mode & 0o001:
            parent.chmod(0o711)

    def start(program, *before, **more):
        environment = {**bench.environment(LIBRARY), "MCPOOL_LOG": "", "MCPOOL_STATS": str(folder)}
        preload = environment.pop("LD_PRELOAD")
        return subprocess.Popen([*before, "env", f"LD_PRELOAD={preload}", PYTHON, "-c",
                                 PROGRAM + program, str(bench.server.port)],
                                env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                text=True, preexec_fn=die_with_parent, **more)
    start.folder = folder
    return start


def ends_well(process):
    out = process.communicate(timeout=60)[0]
    assert process.returncode == 0
    return out


@pytest.mark.parametrize("deed", [
    "os.truncate(file(), 0)",
    "os.truncate(file(), 100)",
    "os.unlink(file())",
    "name = file(); os.unlink(name); os.mkfifo(name)",
    "name = file(); os.unlink(name); os.mkdir(name)",
    "name = file(); os.rename(name, directory + '/x'); os.symlink(directory + '/x', name)",
    "os.truncate(file(), 0); os.link(file(), directory + '/x')",
    "os.chmod(file(), 0)",
    "name = file(); os.unlink(name); os.rmdir(directory)",
    "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0)); os.truncate(file(), 0)",
    "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))",
    "resource.setrlimit(resource.RLIMIT_NOFILE, (8, 8))",
])
def test_what_is_done_to_the_file(counted, deed):
    ends_well(counted(f"turns(5)\n{deed}\ngo_on()"))


def test_a_file_that_was_cut_short_is_written_again(counted):
    out = ends_well(counted("turns(5); os.truncate(file(), 0); go_on()\n"
                            "print(os.stat(file()).st_size)"))
    assert int(out) > 1000


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@needs_root
def test_another_process_cuts_the_file_of_a_daemon_short(counted):
    """The daemon gives up root, and another process of the same user does it."""
    out = ends_well(counted("""
os.setuid(65534); turns(10)
name = file()
if os.fork() == 0:
    os.truncate(name, 0)
    os._exit(0)
os.wait()
go_on()
print(os.stat(name).st_uid)
"""))
    assert out == "65534\n"


@needs_root
def test_something_else_in_its_place(counted, tmp_path):
    """Nothing is written to a file of root to which a link leads."""
    other = tmp_path / "other"
    other.write_text("of root")
    for make in (os.link, os.symlink):
        ends_well(counted(f"""
turns(5); name = file(); os.unlink(name)
os.{make.__name__}({str(other)!r}, name)
go_on()
"""))
        assert other.read_text() == "of root"


@needs_root
@pytest.mark.parametrize("change", ["os.setuid(65534)", "os.chroot(os.path.dirname(directory))",
                                    "os.chroot(directory)"])
def test_who_becomes_another_goes_on(counted, change):
    ends_well(counted(f"turns(5); {change}; go_on()"))


def test_threads_that_fork_leave_no_fd_in_the_child(counted):
    # A log with a line for each connection opens files far more often than the counters do.
    ends_well(counted("""
import threading
turns()
stop = False
def count():
    while not stop:
        turns()
threads = [threading.Thread(target=count, daemon=True) for _ in range(2)]
for thread in threads: thread.start()
end = time.monotonic() + 4
while time.monotonic() < end:
    if os.fork() == 0:
        links = [os.readlink(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")
                 if os.path.lexists(f"/proc/self/fd/{fd}")]
        os._exit(any(link.startswith(directory) for link in links))
    assert os.wait()[1] == 0
stop = True
for thread in threads: thread.join()
""", "env", f"MCPOOL_LOG={counted.folder}/log", "MCPOOL_LOG_LEVEL=debug"))


def writes_in(trace):
    return re.findall(r"^(?:\d+ +)?([\d.]+) pwrite64\(", trace.read_text(), re.M)


@pytest.mark.parametrize("between", ["pass", "select.select([], [], [], 0.002)",
                                     "select.epoll().poll(0.002)"])
def test_the_file_is_written_once_a_second(counted, tmp_path, between):
    trace = tmp_path / "trace"
    out = ends_well(counted(f"""
made, end = 0, time.monotonic() + 3.5
while time.monotonic() < end:
    turns(); made += 1
    {between}
print(made)
""", "strace", "-f", "-ttt", "-e", "trace=pwrite64", "-o", trace))
    times = [float(at) for at in writes_in(trace)]
    assert int(out) > 100
    # One when the file is made, one by the call that made it.
    assert 3 <= len(times) <= 6
    assert all(later - earlier > 0.5 for earlier, later in zip(times[1:], times[2:]))


@pytest.mark.parametrize("wait", [
    "select.select([0], [], [])",
    "p = select.poll(); p.register(0); p.poll()",
    "e = select.epoll(); e.register(0, 1); e.poll()",
    "l = socket.create_server(('127.0.0.1', 0)); l.accept()",
])
def test_what_was_counted_is_written_when_it_goes_quiet(counted, wait):
    process = counted(f"turns(7); {wait}")
    try:
        seen = None
        for _ in range(40):
            done = mcpool("stat", environment={**os.environ, "MCPOOL_STATS": str(counted.folder)})
            if seen := re.search(r" 7 +6 +1 ", done.stdout):
                break
            time.sleep(0.05)
        assert seen, done.stdout
    finally:
        process.kill()
        process.communicate()
