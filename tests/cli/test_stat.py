"""mcpool stat and top: what processes that pool show, and what is made of files that lie."""

import json
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import time

import pytest

from observed import COMMAND

# The header of a file, as shim/stats/stats_file.h has it.
HEADER = struct.Struct("<QIIIIQiIQQq24s")


def only_server(process):
    assert len(process["servers"]) == 1
    return process["servers"][0]


def test_counters_are_what_happened(host):
    client = host.client().turns(10).turns(-2)
    process = host.seen()[client.pid]
    counted = only_server(process)
    assert counted["endpoint"] == host.server.address
    assert (counted["connects"], counted["reused"], counted["opened"]) == (12, 10, 2)
    assert (counted["in_use"], counted["idle"], counted["kept"]) == (0, 0, 10)
    assert counted["refused"] == {"REQUEST_PARTIAL": 2}
    assert counted["hit_rate"] == pytest.approx(10 / 12, abs=1e-4)
    assert counted["time_wait_avoided"] == 10
    mean = counted["connect_us"] / counted["connects_timed"] / 1e6
    assert counted["connect_seconds_avoided"] == pytest.approx(10 * mean, abs=1e-5)
    assert process["command"] == "python3" and not process["dry_run"]


def test_table(host):
    first, second = host.client().turns(4), host.client().turns(6).turns(-1)
    done = host.mcpool("stat")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].startswith("python3: 2 processes, libmcpool ")
    assert re.search(rf"^ +{first.pid}  {host.server.address} +0 +1 +4 +3 +1  75.0% ", done.stdout, re.M)
    assert re.search(rf"^ +{second.pid} .* 7 +6 +1 ", done.stdout, re.M)
    assert "not kept            1  REQUEST_PARTIAL (a request was sent only in part)" in done.stdout
    assert re.search(r"^ +total .* 11 +9 +2  81.8% ", lines[-1])


def test_dry_runs_are_shown_as_such(host):
    host.client().turns(3)
    dry = host.client(MCPOOL_DRY_RUN="on").turns(5)
    assert host.seen()[dry.pid]["dry_run"]
    assert only_server(host.seen()[dry.pid])["reused"] == 4
    done = host.mcpool("stat")
    wet, forecast = done.stdout.split("\n\n")
    assert "dry run" not in wet and "WOULD BE" not in wet
    assert "dry run: nothing was reused" in forecast and "WOULD BE" in forecast


def test_only_those_asked_for(host):
    first, second = host.client().turns(1), host.client().turns(1)
    assert set(host.seen()) == {first.pid, second.pid}
    assert set(host.seen(second.pid)) == {second.pid}
    assert host.mcpool("stat", os.getpid()).returncode == 1


def test_nobody(host):
    done = host.mcpool("stat")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "mcpool: no process shows counters\n"
    assert json.loads(host.mcpool("stat", "--json").stdout) == {"processes": []}


def test_files_of_the_dead_are_removed(host):
    client = host.client().turns(1)
    client.kill()
    assert len(os.listdir(host.stats)) == 1
    assert host.seen() == {}
    assert os.listdir(host.stats) == []


def test_counters_can_be_read_while_they_change(host):
    client = host.client().turns(1)
    client.process.stdin.write("3000\n")
    client.process.stdin.flush()
    last = 0
    for _ in range(30):
        counted = only_server(host.seen()[client.pid])
        assert counted["connects"] >= last
        last = counted["connects"]
    client.process.stdout.readline()
    client.made += 3000
    client.wait_until_written()
    assert only_server(host.seen()[client.pid])["connects"] == 3001


def copy_of(host, client, name, change=lambda header: header):
    """The file of CLIENT under another NAME, with a changed header."""
    original = next(host.stats.glob(f"{client.pid}-*"))
    content = original.read_bytes()
    fields = change(list(HEADER.unpack(content[:HEADER.size])))
    path = host.stats / name
    path.write_bytes(HEADER.pack(*fields) + content[HEADER.size:])
    return path


def own_start():
    with open("/proc/self/stat", encoding="ascii") as file:
        return int(file.read().rsplit(")", 1)[1].split()[19])


def in_our_name(header):
    header[6], header[8] = os.getpid(), own_start()
    return header


def with_change(index, value):
    def change(header):
        in_our_name(header)
        header[index] = value
        return header
    return change


def own_name():
    return f"{os.getpid()}-{own_start()}"


def test_a_copy_in_our_name_is_read(host):
    """Or else the tests below would test nothing."""
    copy_of(host, host.client().turns(1), own_name(), in_our_name)
    assert os.getpid() in host.seen()


@pytest.mark.parametrize("field, value", [
    (1, 99), (2, 4096), (3, 0), (3, 1 << 31), (4, 1), (4, 1 << 31), (5, 1)])
def test_files_of_another_layout_are_refused_politely(host, field, value):
    client = host.client().turns(1)
    copy_of(host, client, own_name(), with_change(field, value))
    done = host.mcpool("stat")
    assert done.returncode == 0
    assert done.stderr == "mcpool: 1 more with another version of libmcpool.so\n"
    assert str(client.pid) in done.stdout and str(os.getpid()) not in done.stdout


@pytest.mark.parametrize("field, value", [(0, 1), (6, 1), (8, 1), (9, 1)])
def test_files_that_are_no_ones_are_passed_over(host, field, value):
    client = host.client().turns(1)
    path = copy_of(host, client, own_name(), with_change(field, value))
    assert set(host.seen()) == {client.pid}
    assert path.exists()


def test_odd_files(host):
    client = host.client().turns(1)
    (host.stats / "README").write_text("none of ours")
    (host.stats / own_name()).write_bytes(b"")
    (host.stats / "1-1").mkdir()
    os.mkfifo(host.stats / "1-2")
    (host.stats / "1-3").symlink_to(next(host.stats.glob(f"{client.pid}-*")))
    assert set(host.seen()) == {client.pid}


@pytest.mark.parametrize("left", [0, 1, 0.5])
def test_files_that_were_cut_short(host, left):
    """Servers that are whole are shown."""
    path = copy_of(host, host.client().turns(1), own_name(), in_our_name)
    size = path.stat().st_size
    os.truncate(path, HEADER.size + int((size - HEADER.size) * left))
    assert len(host.seen()[os.getpid()]["servers"]) == (1 if left == 1 else 0)
    os.truncate(path, HEADER.size - 1)
    assert os.getpid() not in host.seen()


def test_a_name_cannot_write_on_the_terminal(host):
    path = copy_of(host, host.client().turns(1), own_name(), in_our_name)
    content = path.read_bytes()
    path.write_bytes(content.replace(host.server.address.encode(), b'\033[2J"\\' + b"\n" * 4))
    assert os.getpid() in host.seen()
    for command in ("stat", "metrics"):
        assert "\033" not in host.mcpool(command).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_nobody_speaks_for_others(host):
    client = host.client().turns(1)
    path = copy_of(host, client, own_name(), in_our_name)
    os.chown(path, 65534, 65534)
    assert set(host.seen()) == {client.pid}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_other_users_are_counted_only(host):
    host.client().turns(1)
    command = shutil.copy(COMMAND, host.stats / "mcpool")
    for folder in (host.stats, *host.stats.parents):
        if not os.stat(folder).st_mode & 0o001:
            folder.chmod(0o711)
    done = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups",
                           command, "stat"], env=host.environment(), capture_output=True, text=True,
                          timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert "1 more of other users; only root sees them" in done.stderr


def test_watch(host):
    client = host.client().turns(1)
    with subprocess.Popen([COMMAND, "stat", "--json", "--watch=0.1"], env=host.environment(),
                          stdout=subprocess.PIPE, text=True) as watching:
        for turn in (1, 2):
            connects = 0
            while connects < turn:
                text = ""
                while not text.endswith("]}\n") or text.count("{") != text.count("}"):
                    text += watching.stdout.readline()
                connects = only_server(json.loads(text)["processes"][0])["connects"]
            client.turns(1)
        watching.kill()


def screen_of(descriptor, wanted, seconds=10):
    """What is shown until WANTED is."""
    text, deadline = "", time.monotonic() + seconds
    while wanted not in text:
        assert time.monotonic() < deadline, text
        if select.select([descriptor], [], [], 0.2)[0]:
            text += os.read(descriptor, 65536).decode()
    return text


def test_top_in_a_terminal(host):
    client = host.client().turns(5)
    child, terminal = pty.fork()
    if child == 0:
        os.execve(COMMAND, [COMMAND, "top", "--delay", "0.2"],
                  dict(host.environment(), TERM="xterm", LINES="20", COLUMNS="140"))
    shown = screen_of(terminal, "80.0%")
    assert "1 process, by connects" in shown and str(client.pid) in shown
    os.write(terminal, b"h")
    screen_of(terminal, "hits")
    client.turns(50)
    screen_of(terminal, "reused")
    os.write(terminal, b"q")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)


def test_top_without_a_terminal(host):
    done = host.mcpool("top", stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "needs a terminal" in done.stderr
