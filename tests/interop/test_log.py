"""The log in a program that closes the log's fd, or has reused it for another file."""

import fcntl
import os
import pty
import re
import select
import signal
import socket
import subprocess
import termios

import pytest

from beside import LIBRARY, PYTHON, die_with_parent

# Makes turns; with the word `connection`, only on fd 2.
TURNS = """
import os, signal, socket, sys
def turns(number):
    for _ in range(number):
        with socket.socket() as fd:
            fd.connect(("127.0.0.1", int(sys.argv[1])))
            for _ in range(2):
                fd.sendall(b"get a\\r\\n")
                got = fd.recv(100)
                assert got == b"END\\r\\n", got
            if "connection" in sys.argv:
                assert fd.fileno() == 2
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
"""


def start(bench, program, *arguments, log="stderr", **more):
    """PROGRAM, which makes turns, with its log on LOG."""
    environment = {**bench.environment(LIBRARY), "MCPOOL_LOG": str(log), "MCPOOL_STATS": "off"}
    return subprocess.Popen([PYTHON, "-c", TURNS + program, str(bench.server.port), *arguments],
                            env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                            text=True, **{"preexec_fn": die_with_parent, **more})


def ends_well(process):
    """What PROCESS wrote on stdout."""
    out = process.communicate(timeout=30)[0]
    assert process.returncode == 0
    return out


def taken_from(descriptor):
    """What can be read there now."""
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, 65536)
    except BlockingIOError:
        return b""


def test_stderr_is_written_to_while_it_is_the_same(bench):
    read, write = os.pipe()
    ends_well(start(bench, "turns(3)", stderr=write))
    assert taken_from(read).count(b": reused as") == 2


def test_a_connection_that_has_the_fd_of_stderr_gets_no_line(bench):
    ends_well(start(bench, "sys.stderr = None; os.close(2); turns(20)", "connection"))


def test_a_file_that_has_the_fd_of_stderr_gets_no_line(bench, tmp_path):
    data = tmp_path / "data"
    ends_well(start(bench, "sys.stderr = None; os.close(2)\n"
                    f"fd = os.open({str(data)!r}, os.O_WRONLY | os.O_CREAT)\n"
                    "assert fd == 2; os.write(fd, b'data'); turns(20)"))
    assert data.read_bytes() == b"data"


def test_stderr_that_was_closed_at_the_start_stays_unused(bench, tmp_path):
    data = tmp_path / "data"
    ends_well(start(bench, f"fd = os.open({str(data)!r}, os.O_WRONLY | os.O_CREAT)\n"
                    "os.dup2(fd, 2); turns(20)", preexec_fn=lambda: os.close(2)))
    assert data.read_bytes() == b""


@pytest.mark.parametrize("make", [os.pipe, lambda: [end.detach() for end in socket.socketpair()]])
def test_stderr_that_no_one_reads_is_no_signal(bench, make):
    read, write = make()
    os.close(read)
    process = start(bench, "turns(20)", stderr=write)
    os.close(write)
    ends_well(process)


def test_signals_of_the_program_stay_its_own(bench):
    read, write = socket.socketpair()
    read.close()
    out = ends_well(start(bench, "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGPIPE])\n"
                          "turns(3); print(sorted(signal.sigpending()))\n"
                          "os.kill(os.getpid(), signal.SIGPIPE)\n"
                          "turns(3); print(sorted(map(int, signal.sigpending())))\n"
                          "print(sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, []))))",
                          stderr=write.fileno()))
    assert out == f"[]\n[{int(signal.SIGPIPE)}]\n[{int(signal.SIGPIPE)}]\n"


def full_pipe():
    read, write = os.pipe()
    fcntl.fcntl(write, fcntl.F_SETPIPE_SZ, 4096)
    os.write(write, b"x" * 4096)
    return read, write


def full_socket():
    ends = socket.socketpair()
    ends[1].setblocking(False)
    with pytest.raises(BlockingIOError):
        while True:
            ends[1].send(b"x" * 4096)
    ends[1].setblocking(True)
    return [end.detach() for end in ends]


def stopped_terminal():
    read, write = pty.openpty()
    termios.tcflow(write, termios.TCOOFF)
    return read, write


@pytest.mark.parametrize("make", [full_pipe, full_socket, stopped_terminal])
def test_stderr_that_is_full_makes_no_one_wait(bench, make):
    read, write = make()
    process = start(bench, "turns(20)", stderr=write)
    try:
        ends_well(process)
    finally:
        process.kill()
        os.close(read)


def test_a_fifo_is_no_log_file(bench, tmp_path):
    path = tmp_path / "fifo"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    ends_well(start(bench, "turns(20)", log=path))
    assert os.read(reader, 4096) == b""
    poller = select.poll()
    poller.register(reader)
    assert poller.poll(0) == [], "a writer has come and gone"


def test_a_device_is_no_log_file(bench):
    read, write = pty.openpty()
    ends_well(start(bench, "turns(20)", log=os.ttyname(write)))
    assert taken_from(read) == b""


@pytest.mark.parametrize("path", ["/dev/null", "/dev/stderr", "/proc/self/fd/2", "socket", "/"])
def test_what_is_no_file_does_no_harm(bench, tmp_path, path):
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "socket"))
        listener.listen()
        read, write = os.pipe()
        ends_well(start(bench, "turns(20)", log=tmp_path / path, stderr=write))
        assert taken_from(read) == b""


def test_a_log_file_is_never_opened_as_a_standard_stream(bench, tmp_path):
    trace, log = tmp_path / "trace", tmp_path / "log"
    environment = {**bench.environment(LIBRARY), "MCPOOL_LOG": str(log), "MCPOOL_STATS": "off"}
    done = subprocess.run(
        ["strace", "-f", "-e", "trace=write,openat", "-o", trace,
         "-E", f"LD_PRELOAD={environment.pop('LD_PRELOAD')}", PYTHON, "-c",
         TURNS + "os.closerange(0, 3); turns(5); os._exit(0)", str(bench.server.port)],
        env=environment, timeout=60, check=False, preexec_fn=die_with_parent)
    assert done.returncode == 0
    assert log.read_text().count(": reused as") == 4
    lines = [line for line in trace.read_text().splitlines() if "libmcpool[" in line]
    assert lines and not [line for line in lines if re.search(r"write\([0-2],", line)]


def test_a_limited_size_of_files_is_no_signal(bench, tmp_path):
    with open(tmp_path / "err", "wb") as file:
        ends_well(start(bench, "import resource\n"
                        "resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300)); turns(20)",
                        stderr=file))
    assert 0 < (tmp_path / "err").stat().st_size <= 300
