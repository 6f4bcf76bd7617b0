"""mcpool top on screens of several sizes, drawn by a real terminal (tmux)."""

import os
import re
import shlex
import shutil
import signal
import struct
import subprocess
import time

import pytest

from observed import COMMAND
from test_stat import HEADER, SLOT, header_of, own_name

NAMES = ["gauge in_use", "gauge idle", "counter connects", "counter reused", "counter opened",
         "reason TLS"]
ROWS = 50

pytestmark = pytest.mark.skipif(not shutil.which("tmux"), reason="no tmux here")


def write_rows(host, connects=100, rows=ROWS):
    """Leaves a file of this process with ROWS servers. Server N has N connections in use, and N percent of
    CONNECTS were reused."""
    block = "".join(name + "\0" for name in NAMES).encode()
    header = header_of(os.getpid(), 2, HEADER.size + len(block), SLOT.size + 8 * (len(NAMES) + 1),
                       HEADER.size, len(block), SLOT.size)
    slots = [SLOT.pack(2, 0, f"10.0.0.{n}:11211".encode()) +
             struct.pack("<7Q", n, 1, connects, connects * n // 100, connects - connects * n // 100, 1, 0)
             for n in range(rows)]
    made = host.stats / "new"
    made.write_bytes(header + block + b"".join(slots))
    made.rename(host.stats / own_name())


class Top:
    """mcpool top on a screen of COLUMNS by LINES."""

    def __init__(self, host, path, columns, lines, delay=3600):
        self.socket = str(path / "tmux")
        # tmux strips the variables that it sets itself, and takes the others from its first client.
        environment = {name: value for name, value in host.environment().items()
                       if name not in ("TMUX", "LINES", "COLUMNS")}
        environment.update(LC_ALL="C.UTF-8", TERM="screen")
        command = f"{shlex.quote(COMMAND)} top --delay {delay}; echo ended $?; read nothing"
        subprocess.run(["tmux", "-S", self.socket, "-f", "/dev/null", "new-session", "-d", "-x", str(columns),
                        "-y", str(lines), "sh", "-c", command, ";", "set", "status", "off", ";",
                        "resize-window", "-x", str(columns), "-y", str(lines)],
                       check=True, env=environment, timeout=60)
        self.columns, self.lines = columns, lines

    def tmux(self, *arguments):
        return subprocess.run(["tmux", "-S", self.socket, *arguments], stdout=subprocess.PIPE, text=True,
                              timeout=60, check=True).stdout

    def screen(self):
        """The lines of the screen."""
        lines = self.tmux("capture-pane", "-p").split("\n")[:-1]
        assert max(map(len, lines)) <= self.columns
        return lines + [""] * (self.lines - len(lines))

    def wait_for(self, wanted, seconds=10):
        """The lines of the screen once WANTED, a regular expression, is in them, and they are drawn to the
        end: twice the same."""
        deadline, before = time.monotonic() + seconds, None
        while True:
            lines = self.screen()
            if lines == before and re.search(wanted, "\n".join(lines), re.M):
                return lines
            assert time.monotonic() < deadline, "\n".join(lines)
            before = lines
            time.sleep(0.05)

    def press(self, *keys):
        self.tmux("send-keys", *keys)

    def servers(self):
        return re.findall(r"10\.0\.0\.(\d+):11211", "\n".join(self.screen()))


@pytest.fixture
def top(host, tmp_path):
    started = []

    def start(columns, lines, **more):
        started.append(Top(host, tmp_path, columns, lines, **more))
        return started[-1]

    yield start
    for one in started:
        one.tmux("kill-server")


def test_80_by_24_has_the_columns_that_matter(host, top):
    write_rows(host)
    lines = top(80, 24).wait_for("HITS")
    assert lines[0].endswith("1 process, by connects")
    for name in ("PID", "SERVICE", "SERVER", "IN USE", "CONNECT/s", "OPENED/s", "NOT KEPT", "HITS"):
        assert name in lines[1]
    assert "REUSED/s" not in lines[1]
    assert re.match(rf" *{os.getpid()} +\S+ +10\.0\.0\.0:11211 +0 ", lines[2])
    assert len([line for line in lines if "10.0.0." in line]) == 20


def test_wide_screens_have_all_columns(host, top):
    write_rows(host)
    lines = top(140, 24).wait_for("HITS")
    for name in ("IDLE", "REUSED/s", "OPENED/s", "NOT KEPT"):
        assert name in lines[1]


@pytest.mark.parametrize("columns, lines, shown", [(80, 24, 20), (40, 10, 6)])
def test_hidden_rows_are_counted_and_summed(host, top, columns, lines, shown):
    write_rows(host)
    started = top(columns, lines)
    started.press("u")
    rows = started.wait_for("by in use")
    assert f"1-{shown} of {ROWS} rows" in rows[-1] and f"{ROWS - shown} hidden" in rows[-1]
    total = rows[-2].split()
    assert total[0] == "total" and str(sum(range(ROWS))) in total


def test_hits_of_all_are_summed(host, top):
    write_rows(host)
    total = top(40, 10).wait_for("^ *total")[-2]
    assert total.split()[-1] == f"{sum(range(ROWS)) / ROWS:.1f}%"


def test_40_by_10(host, top):
    write_rows(host)
    lines = top(40, 10).wait_for("HITS")
    assert "1 process, by connects" in lines[0]
    assert lines[1].split() == ["PID", "SERVICE", "CONNECT/s", "HITS"]
    assert len([line for line in lines if str(os.getpid()) in line]) == 6


def test_the_column_sorted_by_is_always_there(host, top):
    write_rows(host)
    started = top(40, 10)
    started.press("o")
    assert "OPENED/s" in started.wait_for("by opened")[1]
    started.press("i")
    assert "IDLE" in started.wait_for("by idle")[1]


def test_rows_that_all_fit_are_not_hidden(host, top):
    write_rows(host, rows=3)
    lines = top(80, 24).wait_for("rows")
    assert "1-3 of 3 rows" in lines[-1] and "hidden" not in lines[-1]


def test_keys_sort(host, top):
    write_rows(host)
    started = top(80, 24)
    started.wait_for("by connects")
    started.press("u")
    started.wait_for("by in use")
    assert started.servers() == [str(n) for n in range(49, 29, -1)]
    started.press("h")
    started.wait_for("by hits")
    assert started.servers() == [str(n) for n in range(49, 29, -1)]
    started.press("p")
    started.wait_for("by pid")
    assert started.servers()[0] == "0"


def test_keys_scroll(host, top):
    write_rows(host)
    started = top(80, 24)
    started.wait_for("^1-20 of")
    for key, first in [("Down", 2), ("Down", 3), ("Up", 2), ("NPage", 22), ("End", 31), ("Down", 31),
                       ("PPage", 11), ("Home", 1), ("Up", 1)]:
        started.press(key)
        started.wait_for(f"^{first}-{first + 19} of {ROWS} rows")
        assert started.servers() == [str(n) for n in range(first - 1, first + 19)]
    started.press("End", "u")
    started.wait_for(f"by in use(.|\n)*^31-50 of {ROWS} rows")


def test_the_screen_may_change_its_size(host, top):
    write_rows(host)
    started = top(80, 24)
    started.wait_for("^1-20 of")
    started.press("End")
    started.wait_for("^31-50 of")
    started.columns, started.lines = 40, 10
    started.tmux("resize-window", "-x", "40", "-y", "10")
    started.wait_for("^31-36 of")
    started.columns, started.lines = 100, 60
    started.tmux("resize-window", "-x", "100", "-y", "60")
    lines = started.wait_for("^1-50 of")
    assert len([line for line in lines if "10.0.0." in line]) == ROWS


def test_nothing_runs_into_the_next_line(host, top):
    write_rows(host)
    lines = top(15, 6).wait_for("PID")
    assert len(lines[0]) == 15 and lines[1].split() == ["PID"]
    assert lines[-1] == "1-2 of 50 rows,"


@pytest.mark.parametrize("columns, lines", [(1, 1), (7, 3), (20, 4), (15, 5)])
def test_tiny_screens(host, top, columns, lines):
    write_rows(host)
    started = top(columns, lines)
    time.sleep(0.3)
    started.screen()
    started.press("End", "q")
    started.columns, started.lines = 80, 24
    started.tmux("resize-window", "-x", "80", "-y", "24")
    started.wait_for("ended 0")


def test_space_alone_refreshes_at_once(host, top):
    write_rows(host)
    started = top(80, 24)
    started.wait_for("of 50 rows")
    write_rows(host, connects=1000000)
    started.press("x", "u")
    assert re.search(r" 0\.0 ", started.wait_for("by in use")[-2])
    started.press("Space")
    assert not re.search(r" 0\.0 +0\.0 ", started.wait_for(r"total .*\d\d\.\d")[-2])


def test_keys_do_not_put_off_the_refresh(host, top):
    write_rows(host)
    started = top(80, 24, delay=1)
    started.wait_for("of 50 rows")
    write_rows(host, connects=1000000)
    deadline = time.monotonic() + 20
    while not re.search(r"total .*\d\d\.\d ", started.screen()[-2]):
        assert time.monotonic() < deadline
        started.press("Down", "Up")
        time.sleep(0.1)


def test_long_names_keep_what_tells_them_apart(host, top):
    names = NAMES[:5]
    block = "".join(name + "\0" for name in names).encode()
    header = header_of(os.getpid(), 2, HEADER.size + len(block), SLOT.size + 8 * len(names), HEADER.size,
                       len(block), SLOT.size)
    path = "/srv/" + "long/" * 20 + "memcached.sock"
    (host.stats / own_name()).write_bytes(
        header + block + SLOT.pack(2, 0, path.encode()) + struct.pack("<5Q", 1, 1, 10, 5, 5))
    assert re.search(r"~\S*memcached\.sock ", top(80, 24).wait_for("HITS")[2])


@pytest.mark.parametrize("number, ended", [("INT", 130), ("TERM", 143)])
def test_a_signal_gives_the_terminal_back(host, top, number, ended):
    write_rows(host)
    started = top(80, 24)
    started.wait_for("of 50 rows")
    subprocess.run(["pkill", f"-{number}", "-x", "mcpool", "-P", started.tmux("list-panes", "-F", "#{pane_pid}").strip()],
                   check=True, timeout=60)
    assert "HITS" not in "".join(started.wait_for(f"ended {ended}"))
    started.press("typed")
    started.wait_for("typed")


def test_it_may_be_stopped(host, top):
    write_rows(host)
    started = top(80, 24)
    started.wait_for("of 50 rows")
    child = subprocess.run(["pgrep", "-x", "mcpool", "-P", started.tmux("list-panes", "-F", "#{pane_pid}").strip()],
                           stdout=subprocess.PIPE, text=True, check=True, timeout=60).stdout.strip()
    os.kill(int(child), signal.SIGTSTP)
    started.wait_for(r"\A\s*\Z")
    os.kill(int(child), signal.SIGCONT)
    started.wait_for("of 50 rows")


@pytest.mark.parametrize("terminal", ["dumb", ""])
def test_terminals_that_can_do_nothing(host, terminal, tmp_path):
    done = subprocess.run(["script", "-qec", f"{shlex.quote(COMMAND)} top", "/dev/null"], stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, text=True, timeout=60, check=False,
                          env=host.environment() | {"TERM": terminal})
    assert "top needs a terminal" in done.stdout and done.returncode == 1


def test_no_process(host, top):
    lines = top(80, 24).wait_for("0 processes")
    assert "no process shows counters; see mcpool stat" in lines[2]
