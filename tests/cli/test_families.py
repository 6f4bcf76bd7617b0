"""What the commands say of processes that share idle connections, and of those that share none."""

import json
import os
import re
import struct
import subprocess
import sys
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from observed import HERE, SHIM, Host
from support import LIBRARY, PYTHON, die_with_parent, preloaded
from test_stat import HEADER, SLOT, header_of, only_server, quit_top, screen_of, start_of, start_top, write_file

# The fields behind those of HEADER: the family, the state, and how many connections the family had.
BEHIND = struct.Struct("<QII")
AS_FILTERED = os.path.join(HERE, "..", "interop", "filtered.py")

# Connects once, and forks two children. Reads "CHILD TURNS" from each line on stdin: that child makes so many turns
# and says so. More than 64 are made at the same time. All wait in select(), where a process with one thread gives away what is idle. A child may become
# another user first.
PROGRAM = """
import os, select, socket, sys
port, user = int(sys.argv[1]), int(sys.argv[2])
def connected():
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(b"get a\\r\\n")
    assert s.recv(5) == b"END\\r\\n"
    return s
def turns(number):
    if number > 64:
        for s in [connected() for _ in range(number)]:
            s.close()
    else:
        for _ in range(number):
            connected().close()
def child(orders):
    if user:
        os.setuid(user)
    while True:
        select.select([orders], [], [])
        order = os.read(orders, 1)
        if not order:
            os._exit(0)
        turns(order[0])
        os.write(1, b"done\\n")
turns(1)
children = []
for _ in range(2):
    orders, order = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(order)
        child(orders)
    os.close(orders)
    children.append(order)
    print(pid, flush=True)
turns(1)
while select.select([sys.stdin], [], [])[0]:
    line = sys.stdin.readline()
    if not line:
        break
    index, number = map(int, line.split())
    os.write(children[index], bytes([number]))
"""


class Family:
    """A process and its two children."""

    def __init__(self, host, user=0, before=(), **more):
        environment = preloaded(LIBRARY, host.server.address, MCPOOL_STATS=str(host.stats), **more)
        command = [*before, PYTHON, "-c", PROGRAM, str(host.server.port), str(user)]
        self.host = host
        self.process = subprocess.Popen(command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, preexec_fn=die_with_parent)
        self.parent = self.process.pid
        self.children = [int(self.process.stdout.readline()) for _ in range(2)]
        self.pids = [self.parent, *self.children]

    def turns(self, child, number):
        self.process.stdin.write(f"{child} {number}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"
        return self

    def until(self, is_so):
        """The output of `mcpool stat --json` once IS_SO of it."""
        deadline = time.monotonic() + 20
        while True:
            seen = json.loads(self.host.mcpool("stat", "--json").stdout)
            if is_so(seen):
                return seen
            assert time.monotonic() < deadline, seen
            time.sleep(0.1)

    def until_shown(self):
        """Until the children show counters."""
        return self.until(lambda seen: set(self.children) <= {process["pid"] for process in seen["processes"]})

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)


def given(number):
    return lambda seen: [(found["given"], found["queued"]) for found in seen["families"]] == [(number, 1)]


@pytest.fixture(scope="module")
def family(server, tmp_path_factory):
    """Each child has taken the one connection there is, and given it back."""
    stats = tmp_path_factory.mktemp("counters")
    stats.chmod(0o1777)

    with Family(Host(server, stats)) as made:
        made.until(given(1))
        for child in (0, 1):
            made.turns(child, 3).until(given(child + 2))
        yield made


def test_json(family):
    seen = json.loads(family.host.mcpool("stat", "--json").stdout)
    [found] = seen["families"]
    assert sorted(found["pids"]) == sorted(family.pids)
    assert (found["given"], found["taken"], found["foreign"], found["queued"]) == (3, 2, 0, 1)
    assert [found[f"not_given_{why}"] for why in ("full", "alone", "refused")] == [0, 0, 0]
    assert {process["family"] for process in seen["processes"]} == {found["family"]}
    assert {process["share"] for process in seen["processes"]} == {"SHARED"}
    assert sum(only_server(process)["opened"] for process in seen["processes"]) == 1


def test_table(family):
    assert family.host.mcpool("stat").stdout.endswith(
        "  family of 3 processes: given 3, taken 2, shared idle 1\n")
    assert "  family of 1 process: given 1, taken 1, " in family.host.mcpool("stat", family.children[0]).stdout


def test_metrics(family):
    text = family.host.mcpool("metrics").stdout
    families = {found.name: found.samples for found in text_string_to_metric_families(text)}
    [queued] = families["mcpool_family_queued"]
    assert (queued.value, queued.labels["uid"], queued.labels["service"]) == (1, str(os.geteuid()), "python3")
    infos = families["mcpool_process_info"]
    assert {info.labels["family"] for info in infos} == {queued.labels["family"]}
    assert {info.labels["share"] for info in infos} == {"SHARED"}
    assert sum(sample.value for sample in families["mcpool_taken"]) == 2


def test_check_says_with_whom(family):
    for pid in family.pids:
        others = ", ".join(str(other) for other in family.pids if other != pid)
        assert f"\nshares idle connections with {others}\n" in family.host.mcpool("check", pid).stdout


def test_doctor(family):
    [finding] = json.loads(family.host.mcpool("doctor", "--json").stdout)["findings"]
    [text] = [found["text"] for found in finding["sentences"] if found["about"] == "family"]
    assert text == ("3 processes share idle connections with others of one ancestor: 3 given, 2 taken. Not "
                    "given were 0 for lack of room, 0 that no other process would have looked after, and 0 that the "
                    "kernel refused. Now they have 1 idle connection in common, to all servers together.")


def test_top(family):
    child, terminal = start_top(family.host)
    os.write(terminal, b"t")
    screen_of(terminal, "by taken; 1 idle in 1 family")
    screen_of(terminal, "TAKEN/s")
    quit_top(child, terminal)


@pytest.mark.parametrize("key, digits", [(b"t", 12), (b"g", 15)])
def test_top_has_rates(host, key, digits):
    """No other column has so high a rate."""
    names = ["counter connects", "counter given", "counter taken"]
    write_file(host, names, [1, 0, 0])
    child, terminal = start_top(host)
    os.write(terminal, key)
    screen_of(terminal, "by (taken|given)")
    write_file(host, names, [1, 10 ** 15, 10 ** 12])
    screen_of(terminal, rf"\b\d{{{digits},{digits + 1}}}[.]\d")
    quit_top(child, terminal)


# What was not given, and why.

def until_not_given(host, why):
    deadline = time.monotonic() + 20
    while True:
        [found] = json.loads(host.mcpool("stat", "--json").stdout)["families"] or [{why: 0}]
        if found[why] > 0:
            return
        assert time.monotonic() < deadline, found
        time.sleep(0.1)


def test_not_given_as_the_queues_are_full(host):
    with Family(host) as family:
        family.turns(0, 70)
        until_not_given(host, "not_given_full")
        assert ", not given, full " in host.mcpool("stat").stdout


# Has no child any more when it closes three connections and blocks in accept().
BLOCKING = PROGRAM.split("children = []", maxsplit=1)[0] + """
if os.fork() == 0:
    os._exit(0)
os.wait()
for s in [connected() for _ in range(3)]:
    s.close()
listener = socket.create_server(("127.0.0.1", 0))
listener.accept()
"""


def test_not_given_as_no_other_looks_after_it(host):
    environment = preloaded(LIBRARY, host.server.address, MCPOOL_STATS=str(host.stats))
    with subprocess.Popen([PYTHON, "-c", BLOCKING, str(host.server.port), "0"], env=environment,
                          preexec_fn=die_with_parent) as process:
        until_not_given(host, "not_given_alone")
        process.kill()


# Processes that share nothing.

def expect_unshared(family, pid, name, help_begins=""):
    seen = {process["pid"]: process for process in family.until_shown()["processes"]}
    assert seen[pid]["share"] == name and "family" not in seen[pid]
    with open(os.path.join(SHIM, "stats", "share.def"), encoding="ascii") as file:
        [text] = re.findall(rf'^SHARE\({name}, "(.*)"\)$', file.read(), re.M)
    [told] = re.findall(rf"^shares no idle connections: {name} \((.*)\)\n((?:    .*\n)*)",
                        family.host.mcpool("check", pid).stdout, re.M)
    assert told[0] == text
    assert told[1].startswith(f"    {help_begins}" if help_begins else "")
    assert bool(told[1]) == bool(help_begins)


def test_off(host):
    with Family(host, MCPOOL_SHARE="off") as family:
        family.turns(0, 1).turns(1, 1)
        expect_unshared(family, family.children[0], "OFF")
        assert json.loads(host.mcpool("stat", "--json").stdout)["families"] == []
        assert "family" not in host.mcpool("stat").stdout + host.mcpool("doctor").stdout
        assert "shares idle connections with processes of one ancestor: never\n" in host.mcpool(
            "check", family.parent).stdout


def test_a_process_that_does_not_fork(host):
    client = host.client().turns(2)
    assert host.seen()[client.pid]["share"] == "ALONE"
    assert "shares no idle connections: ALONE (" in host.mcpool("check", client.pid).stdout
    assert "shar" not in host.mcpool("stat").stdout + host.mcpool("doctor").stdout


def behind_a_filter():
    """Under a filter that forbids nothing that the library does."""
    pytest.importorskip("seccomp")
    return [sys.executable, AS_FILTERED, "refuse", "0", "77"]


def test_behind_a_filter(host):
    with Family(host, before=behind_a_filter()) as family:
        family.turns(0, 1).turns(1, 1)
        expect_unshared(family, family.children[0], "FILTERED", "Set MCPOOL_SHARE=always if the filter allows")
        told = host.mcpool("stat").stdout
        assert re.search(r"^  not shared by [23] processes: FILTERED \(a seccomp filter is active", told, re.M)
        assert re.search(r"processes share\s+no\s+idle\s+connections: FILTERED",
                         host.mcpool("doctor").stdout)


def test_behind_a_filter_that_is_trusted(host):
    with Family(host, before=behind_a_filter(), MCPOOL_SHARE="always") as family:
        family.until(given(1))
        family.turns(0, 1).until(lambda seen: [found["taken"] for found in seen["families"]] == [1])
        assert "shares idle connections with processes of one ancestor: under a seccomp filter, too\n" in host.mcpool(
            "check", family.parent).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_below_a_root_master(host):
    host.stats.chmod(0o1777)
    for above in host.stats.parents:
        if not os.stat(above).st_mode & 0o001:
            above.chmod(0o711)
    with Family(host, user=65534) as family:
        family.turns(0, 1).turns(1, 1)
        expect_unshared(family, family.children[0], "IDENTITY", "Start the master as the user of its workers")


# Files as others might write them.

def write_member(host, number, queued, written, pid=os.getpid(), at=BEHIND.size, state=1):
    """Leaves a file of the process PID, whose family has NUMBER and had QUEUED connections when it was WRITTEN."""
    block = b"counter connects\0"
    names_at = HEADER.size + at
    header = header_of(pid, 2, names_at + len(block), SLOT.size + 8, names_at, len(block), SLOT.size)
    path = host.stats / f"{pid}-{start_of(pid)}"
    path.write_bytes(header + BEHIND.pack(number, state, queued)[:at] + block +
                     SLOT.pack(2, 0, b"127.0.0.1:1") + struct.pack("<Q", 7))
    os.utime(path, (written, written))
    return path


def families_seen(host):
    return json.loads(host.mcpool("stat", "--json").stdout)["families"]


@pytest.mark.parametrize("ours, other", [(2000, 1000), (1000, 2000)])
def test_the_file_that_was_written_last_says_what_is_queued(host, ours, other):
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        write_member(host, 7, ours, ours)
        write_member(host, 7, other, other, sleeper.pid)
        [found] = families_seen(host)
        sleeper.kill()
    assert found["queued"] == 2000 and len(found["pids"]) == 2


def test_what_the_dead_have_given_needs_room_at_the_server(host):
    write_member(host, 7, 50, 1000)
    [finding] = json.loads(host.mcpool("doctor", "--json").stdout)["findings"]
    [text] = [found["text"] for found in finding["sentences"] if found["about"] == "server"]
    assert text.startswith("Count 50 for it in -c of the server")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_users_that_write_the_same_number_have_two_families(host):
    with subprocess.Popen(["sleep", "60"], user=65534) as sleeper:
        write_member(host, 7, 1, 1000)
        os.chown(write_member(host, 7, 2, 2000, sleeper.pid), 65534, 65534)
        found = families_seen(host)
        text = host.mcpool("metrics").stdout
        sleeper.kill()
    assert sorted(family["queued"] for family in found) == [1, 2]
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples
               if sample.name == "mcpool_family_queued"]
    assert len({tuple(sorted(sample.labels.items())) for sample in samples}) == 2


def test_an_older_file_says_nothing_of_sharing(host):
    """Its names begin where the family is in newer ones."""
    write_member(host, 0, 0, 1000, at=0)
    process = host.seen()[os.getpid()]
    assert only_server(process)["connects"] == 7
    assert "share" not in process and "family" not in process
    assert [found for found in families_seen(host) if os.getpid() in found["pids"]] == []
    assert "shares" not in host.mcpool("check", os.getpid()).stdout


def test_a_state_of_a_newer_library(host):
    write_member(host, 0, 0, 1000, state=99)
    assert host.seen()[os.getpid()]["share"] == "UNKNOWN"
