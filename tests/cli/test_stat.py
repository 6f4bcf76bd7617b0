"""mcpool stat, and a little of top: what they show of processes that pool, and of broken or forged files."""

import json
import os
import pty
import random
import re
import select
import shutil
import struct
import subprocess
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from observed import COMMAND, SHIM
from support import LIBRARY, PYTHON, preloaded

# The header of a file, as shim/stats/stats_file.h has it, and where its fields are.
HEADER = struct.Struct("<QIIIIIIiIQQq24s")
(MAGIC, LAYOUT, HEADER_SIZE, SLOT_SIZE, NAMES_AT, NAMES_SIZE, VALUES_AT, PID, DRY_RUN, START,
 NAMESPACE) = range(11)
SLOT = struct.Struct("<II128s")

STRANGE = "mcpool: 1 more with another version of libmcpool.so\n"


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
    assert counted["connects_timed"] == counted["connect_duration_seconds"]["count"] == 2
    assert counted["connect_seconds_avoided"] == counted["connect_us_avoided"] / 1e6 > 0
    assert counted["idle_age_seconds"]["buckets"]["+Inf"] == counted["idle_age_seconds"]["count"] == 10
    assert counted["connect_failed"] == 0
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
    assert re.search(r"^ +total .* 11 +9 +2  81.8% ", lines[-3])
    spread = r"half within [\d.]+ [um]?s, 99 % within [\d.]+ [um]?s"
    assert re.fullmatch("  real connects: " + spread, lines[-2])
    assert re.fullmatch("  idle until reused: " + spread, lines[-1])


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


def test_no_process(host):
    done = host.mcpool("stat")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"""mcpool: no process shows counters
mcpool: uid {os.geteuid()} looked into
    {host.stats}: nothing to show
    below /proc/PID/root of each process in other namespaces: nothing to show
    MCPOOL_STATS names it. Without that variable, mcpool looks into the default ones.
    A process shows counters from its first connection to a pooled server on.
    `mcpool check PID` says why it shows none.
""" + ("    Only root sees the processes of other users.\n" if os.geteuid() != 0 else "")
    assert json.loads(host.mcpool("stat", "--json").stdout) == {"processes": [], "families": []}


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


def start_of(pid):
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rsplit(")", 1)[1].split()[19])


def own_start():
    return start_of(os.getpid())


def in_our_name(header):
    header[PID], header[START] = os.getpid(), own_start()
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
    """Otherwise the tests below would test nothing."""
    copy_of(host, host.client().turns(1), own_name(), in_our_name)
    assert os.getpid() in host.seen()


@pytest.mark.parametrize("field, value", [
    (LAYOUT, 99), (LAYOUT, 1), (HEADER_SIZE, HEADER.size), (HEADER_SIZE, 4096), (HEADER_SIZE, 1 << 31),
    (SLOT_SIZE, 0), (SLOT_SIZE, 1000), (SLOT_SIZE, 1 << 31), (NAMES_AT, 1), (NAMES_AT, 1 << 31),
    (NAMES_AT, (1 << 32) - 1), (NAMES_SIZE, 0), (NAMES_SIZE, 1), (NAMES_SIZE, 1 << 31),
    (NAMES_SIZE, (1 << 32) - 1), (VALUES_AT, 0), (VALUES_AT, 1000), (VALUES_AT, 1 << 31),
    (VALUES_AT, (1 << 32) - 8)])
def test_files_of_another_layout_are_refused_politely(host, field, value):
    client = host.client().turns(1)
    copy_of(host, client, own_name(), with_change(field, value))
    done = host.mcpool("stat")
    assert done.returncode == 0
    assert done.stderr == STRANGE
    assert str(client.pid) in done.stdout and str(os.getpid()) not in done.stdout


@pytest.mark.parametrize("field, value", [(MAGIC, 1), (PID, 1), (START, 1), (NAMESPACE, 1)])
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
    """Servers whose entries are complete are shown."""
    path = copy_of(host, host.client().turns(1), own_name(), in_our_name)
    header_size = HEADER.unpack(path.read_bytes()[:HEADER.size])[HEADER_SIZE]
    size = path.stat().st_size
    os.truncate(path, header_size + int((size - header_size) * left))
    assert len(host.seen()[os.getpid()]["servers"]) == (1 if left == 1 else 0)
    os.truncate(path, header_size - 1)
    assert os.getpid() not in host.seen()
    assert host.mcpool("stat").stderr == STRANGE
    os.truncate(path, HEADER.size - 1)
    assert os.getpid() not in host.seen()
    assert host.mcpool("stat").stderr == ""


def names_in(content):
    """Of each value in a file: "KIND NAME"."""
    fields = HEADER.unpack(content[:HEADER.size])
    block = content[fields[NAMES_AT]:fields[NAMES_AT] + fields[NAMES_SIZE]]
    assert block.endswith(b"\0")
    return block[:-1].decode("ascii").split("\0")


def name_of(text):
    return text.split(" ")[1]


def header_of(pid, layout, *sizes):
    return HEADER.pack(0x7c1f006c6f6f706d, layout, *sizes, pid, 0, start_of(pid),
                       os.stat("/proc/self/ns/pid").st_ino, 1, b"7.8.9")


def write_file(host, names, values, pid=os.getpid()):
    """Leaves a file of the process PID that has NAMES, a list or the bytes themselves, and one server
    with VALUES. Each part lies at a place that today's library would not choose."""
    block = names if isinstance(names, bytes) else "".join(name + "\0" for name in names).encode()
    values_at = SLOT.size + 24
    names_at = HEADER.size + 3
    header = header_of(pid, 2, names_at + len(block) + 2, values_at + 8 * len(values), names_at, len(block),
                       values_at)
    slot = SLOT.pack(2, 0, b"127.0.0.1:1") + b"x" * 24 + struct.pack(f"<{len(values)}Q", *values)
    path = host.stats / f"{pid}-{start_of(pid)}"
    path.write_bytes(header + b"xxx" + block + b"\0\0" + slot)
    return path


def names_of(client):
    return names_in(next(client.stats.glob(f"{client.pid}-*")).read_bytes())


def numbered(names):
    """Values for NAMES that differ from each other, and the same as the command should show them."""
    stats = [name_of(name) for name in names if not name.startswith("reason ")]
    reasons = [name_of(name) for name in names if name.startswith("reason ")]
    values = [1000 + i for i in range(len(stats) + 2 * len(reasons))]
    return values, (dict(zip(stats, values)), dict(zip(reasons, values[len(stats):])),
                    dict(zip(reasons, values[len(stats) + len(reasons):])))


HISTOGRAMS = {"connect_duration_seconds", "idle_age_seconds"}
DERIVED = HISTOGRAMS | {"endpoint", "hit_rate", "connect_seconds_avoided", "time_wait_avoided", "refused", "discarded"}


def expect_shown(host, expected):
    stats, refused, discarded = expected
    shown = only_server(host.seen()[os.getpid()])
    buckets = {name for name in stats if re.fullmatch(r"(connect_us|idle_age_ms)_(\d+|more)", name)}
    assert {name: shown[name] for name in set(shown) - DERIVED} == {
        name: stats[name] for name in set(stats) - buckets}
    assert shown["refused"] == refused
    assert shown["discarded"] == discarded


def of_another_version(names):
    """NAMES as another version of the library might have them: in another order, with two new ones of each
    kind, and without one of each."""
    stats = [name for name in names if not name.startswith("reason ") and name != "counter fences"]
    reasons = [name for name in names if name.startswith("reason ") and name != "reason TLS"]
    assert len(stats) + len(reasons) == len(names) - 2
    return [*reversed(stats), "counter future_things", "gauge future_level", "reason FUTURE_REASON",
            *reversed(reasons), "reason NEVER_MET"]


def test_processes_of_another_version(host):
    names = of_another_version(names_of(host.client().turns(1)))
    values, expected = numbered(names)
    write_file(host, names, values)
    expect_shown(host, expected)
    assert "fences" not in expected[0] and "future_things" in expected[0]


def test_a_service_with_two_versions(host):
    """As after an upgrade, until all its processes are new."""
    host.client().turns(1)
    old = host.client().turns(1)
    [path] = host.stats.glob(f"{old.pid}-*")
    shown = host.mcpool("stat").stdout
    version = re.search(r"2 processes, libmcpool (\S+)\n", shown).group(1)
    content = path.read_bytes()
    assert content.count(version.encode()) == 1
    path.write_bytes(content.replace(version.encode(), b"0.0.1"))
    assert re.search(rf"2 processes, libmcpool ({version}, 0\.0\.1|0\.0\.1, {version})\n", host.mcpool("stat").stdout)


def test_table_of_another_version(host):
    names = of_another_version(names_of(host.client().turns(1)))
    values, (stats, refused, discarded) = numbered(names)
    write_file(host, names, values)
    done = host.mcpool("stat", os.getpid())
    assert (done.returncode, done.stderr) == (0, "")
    unknown = "FUTURE_REASON (unknown to this version of mcpool)"
    assert f"not kept         {refused['FUTURE_REASON']}  {unknown}\n" in done.stdout
    assert f"discarded        {discarded['FUTURE_REASON']}  {unknown}\n" in done.stdout
    assert f"not kept         {refused['QUIT']}  QUIT (" in done.stdout
    assert re.search(rf" {stats['in_use']} +{stats['idle']} +{stats['connects']} +{stats['reused']} +"
                     rf"{stats['opened']} +[\d.]+% +0 ", done.stdout)


def test_metrics_of_another_version(host):
    client = host.client().turns(1)
    names = of_another_version(names_of(client))
    values, (stats, refused, _) = numbered(names)
    write_file(host, names, values)
    text = host.mcpool("metrics").stdout
    families = {family.name: family for family in text_string_to_metric_families(text)}

    def shown(family, **labels):
        return {int(sample.labels["pid"]): sample.value for sample in families[family].samples
                if labels.items() <= sample.labels.items()}

    assert families["mcpool_future_things"].type == "counter"
    assert shown("mcpool_future_things") == {os.getpid(): stats["future_things"]}
    assert families["mcpool_future_level"].type == "gauge"
    assert shown("mcpool_future_level") == {os.getpid(): stats["future_level"]}
    assert shown("mcpool_refused", reason="FUTURE_REASON") == {os.getpid(): refused["FUTURE_REASON"]}
    assert shown("mcpool_fences") == {client.pid: 0}
    assert shown("mcpool_connects") == {os.getpid(): stats["connects"], client.pid: 1}


def test_metrics_unknown_to_two_processes_stand_together(host):
    """With one header for each name and kind, as the format requires."""
    write_file(host, ["gauge b_level", "counter a_things", "gauge c_level"], [1, 2, 3])
    with subprocess.Popen(["sleep", "60"]) as other:
        write_file(host, ["gauge c_level", "counter b_level", "counter a_things"], [4, 5, 6], other.pid)
        text = host.mcpool("metrics").stdout
        other.kill()
    lines = [re.sub(r"{.*", "", line) for line in text.splitlines()
             if not line.startswith("# HELP") and re.search("[abc]_(level|things)", line)]
    assert lines == [
        "# TYPE mcpool_a_things_total counter", "mcpool_a_things_total", "mcpool_a_things_total",
        "# TYPE mcpool_b_level gauge", "mcpool_b_level",
        "# TYPE mcpool_b_level_total counter", "mcpool_b_level_total",
        "# TYPE mcpool_c_level gauge", "mcpool_c_level", "mcpool_c_level"]


def test_a_new_statistic_cannot_take_the_name_of_another_figure(host):
    names = ["counter connects", "counter refused", "counter hit_rate", "gauge endpoint",
             "counter time_wait_avoided", "gauge connects_total", "gauge process_info", "gauge family_queued", "counter future"]
    write_file(host, names, range(1, 1 + len(names)))
    out = host.mcpool("stat", "--json", os.getpid()).stdout
    keys = re.findall(r'"(\w+)": ', out)
    assert len(keys) == len(set(keys))
    assert only_server(json.loads(out)["processes"][0])["future"] == len(names)
    types = re.findall(r"^# TYPE (\S+)", host.mcpool("metrics").stdout, re.M)
    assert len(types) == len(set(types)) and "mcpool_future_total" in types


LONGEST = 47
MOST = 512


@pytest.mark.parametrize("names", [
    ["counter " + "x" * LONGEST],
    [f"counter x{i}" for i in range(MOST)],
    [f"reason x{i}" for i in range(MOST)],
    ["counter x", "reason x"]])
def test_names_at_their_limits_are_read(host, names):
    values, expected = numbered(names)
    write_file(host, names, values)
    expect_shown(host, expected)


@pytest.mark.parametrize("names", [
    ["counter " + "x" * (LONGEST + 1)],
    ["counter " + "x" * 5000],
    [f"counter x{i}" for i in range(MOST + 1)],
    ["counter connects", "counter connects"],
    ["counter future", "gauge future"],
    ["reason FUTURE", "reason FUTURE"],
    ["reason TLS", "counter connects"],
    ["counter connects", ""],
    ["", "counter connects"],
    ["counter "],
    ["counter"],
    ["connects"],
    ["histogram connects"],
    ["counter  connects"],
    ["counter con nects"],
    ["counter connects\n"],
    ["counter \033[2J"],
    ["counter a\"b"],
    ["counter a\\b"],
    ["counter a-b"],
    ["counter \u00e9"]])
def test_bad_names(host, names):
    write_file(host, names, [7] * 2 * len(names))
    done = host.mcpool("stat")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(STRANGE)
    assert "mcpool_process_info{" not in host.mcpool("metrics").stdout


def test_names_without_an_end(host):
    write_file(host, b"counter connects\0counter reused", [1, 2])
    assert host.seen() == {}
    write_file(host, b"counter connects\0counter reused\0", [1, 2])
    assert set(host.seen()) == {os.getpid()}


def test_values_that_do_not_fit_into_the_slot(host):
    names = ["counter connects", "reason TLS"]
    write_file(host, names, [1, 2])
    assert host.seen() == {}
    write_file(host, names, [1, 2, 3])
    assert set(host.seen()) == {os.getpid()}


def with_endpoints(path, number):
    """Repeats the one slot of the file at PATH under NUMBER names."""
    content = path.read_bytes()
    slots_at = HEADER.unpack(content[:HEADER.size])[HEADER_SIZE]
    slots = b"".join(SLOT.pack(2, 0, b"10.0.%d.%d:11211" % divmod(i, 256)) + content[slots_at + SLOT.size:]
                     for i in range(number))
    path.write_bytes(content[:slots_at] + slots)


def test_more_servers_than_any_process_has(host):
    with_endpoints(write_file(host, ["counter connects"], [7]), 5000)
    servers = host.seen()[os.getpid()]["servers"]
    assert len(servers) == 512 and {server["connects"] for server in servers} == {7}


def test_damaged_bytes(host):
    """Whatever a file contains, the command ends well and its output can be parsed."""
    client = host.client().turns(1)
    path = copy_of(host, client, own_name(), in_our_name)
    content = path.read_bytes()
    header_size = HEADER.unpack(content[:HEADER.size])[HEADER_SIZE]
    dice = random.Random(13)
    shown = 0
    for _ in range(300):
        damaged = bytearray(content)
        for _ in range(dice.choice([1, 1, 2, 8])):
            at = dice.choice([dice.randrange(8, 40), dice.randrange(40, header_size),
                              dice.randrange(len(content))])
            damaged[at] = dice.choice([0, 1, 0x7f, 0x80, 0xff, dice.randrange(256)])
        path.write_bytes(damaged)
        done = host.mcpool("stat", "--json")
        assert done.returncode == 0
        seen = {process["pid"] for process in json.loads(done.stdout)["processes"]}
        assert client.pid in seen
        shown += os.getpid() in seen
        done = host.mcpool("metrics")
        assert done.returncode == 0
        assert list(text_string_to_metric_families(done.stdout))
    assert 10 < shown < 290


# Files of release 0.1.0 have no names, but these bytes in their place.
LAYOUT_OF_0_1_0 = 1
DIGEST_OF_0_1_0 = 0x8b34162ae12dda2b
STATS_OF_0_1_0, REASONS_OF_0_1_0 = 12, 54


def write_file_of_0_1_0(host, digest):
    values = [1 + i for i in range(STATS_OF_0_1_0 + 2 * REASONS_OF_0_1_0)]
    header = header_of(os.getpid(), LAYOUT_OF_0_1_0, HEADER.size, SLOT.size + 8 * len(values),
                       REASONS_OF_0_1_0, digest & 0xffffffff, digest >> 32)
    (host.stats / own_name()).write_bytes(
        header + SLOT.pack(2, 0, b"127.0.0.1:1") + struct.pack(f"<{len(values)}Q", *values))
    return values


def test_processes_of_release_0_1_0(host):
    """Their counters have today's names, and none is unknown."""
    values = write_file_of_0_1_0(host, DIGEST_OF_0_1_0)
    shown = only_server(host.seen()[os.getpid()])
    with open(os.path.join(SHIM, "stats", "stats.def"), encoding="ascii") as file:
        stats = re.findall(r"^STAT\(\w+, (\w+),", file.read(), re.M)
    with open(os.path.join(SHIM, "base", "reasons.def"), encoding="ascii") as file:
        reasons = ["none", *re.findall(r"^REASON\((\w+),", file.read(), re.M)]
    assert set(shown) - DERIVED <= set(stats) and set(shown["refused"]) <= set(reasons)
    assert [shown[name] for name in stats if name in shown] == values[:STATS_OF_0_1_0]
    assert list(shown["refused"].values()) == values[STATS_OF_0_1_0:STATS_OF_0_1_0 + REASONS_OF_0_1_0]
    assert list(shown["discarded"].values()) == values[STATS_OF_0_1_0 + REASONS_OF_0_1_0:]
    assert list(shown["refused"]) == list(shown["discarded"])
    assert "unknown" not in host.mcpool("stat").stdout + host.mcpool("metrics").stdout


def test_builds_between_the_releases_are_not_read(host):
    """The command does not know their lists of names."""
    write_file_of_0_1_0(host, DIGEST_OF_0_1_0 ^ 1)
    assert host.mcpool("stat").stderr.startswith(STRANGE)
    assert host.seen() == {}


def test_a_name_cannot_write_on_the_terminal(host):
    path = copy_of(host, host.client().turns(1), own_name(), in_our_name)
    content = path.read_bytes()
    path.write_bytes(content.replace(host.server.address.encode(), b'\033[2J"\\' + b"\n" * 4))
    assert os.getpid() in host.seen()
    for command in ("stat", "metrics"):
        assert "\033" not in host.mcpool(command).stdout


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
def test_no_process_speaks_for_others(host):
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


def test_watch_ends_with_the_processes(host):
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    done = host.mcpool("stat", "--watch=0.1", gone.pid)
    assert done.returncode == 1 and f"process {gone.pid} shows no counters" in done.stderr


def screen_of(descriptor, wanted, seconds=10):
    """The output until WANTED, a regular expression, appears."""
    text, deadline = "", time.monotonic() + seconds
    while not re.search(wanted, text):
        assert time.monotonic() < deadline, text
        if select.select([descriptor], [], [], 0.2)[0]:
            text += os.read(descriptor, 65536).decode()
    return text


def start_top(host):
    child, terminal = pty.fork()
    if child == 0:
        os.execve(COMMAND, [COMMAND, "top", "--delay", "0.2"],
                  dict(host.environment(), TERM="xterm", LINES="20", COLUMNS="140"))
    return child, terminal


def test_top_in_a_terminal(host):
    client = host.client().turns(5)
    child, terminal = start_top(host)
    shown = screen_of(terminal, "80[.]0%")
    assert "1 process, by connects" in shown and str(client.pid) in shown
    os.write(terminal, b"h")
    screen_of(terminal, "hits")
    client.turns(50)
    screen_of(terminal, "98[.]2")
    quit_top(child, terminal)


def quit_top(child, terminal):
    os.write(terminal, b"q")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.close(terminal)


def test_top_counts_reasons_that_it_does_not_know(host):
    """With a rate that no other column has."""
    names = ["counter connects", "reason FUTURE_REASON"]
    write_file(host, names, [1, 0, 0])
    child, terminal = start_top(host)
    screen_of(terminal, " 0[.]0%")
    write_file(host, names, [1, 10 ** 12, 0])
    screen_of(terminal, r"\d{12}[.]\d")
    quit_top(child, terminal)


def test_top_without_a_terminal(host):
    done = host.mcpool("top", stdin=subprocess.DEVNULL)
    assert done.returncode == 1 and "needs a terminal" in done.stderr


CONNECTS = """
import errno, select, socket, sys, threading, time

def server():
    listening = socket.socket()
    listening.bind(("127.0.0.1", 0))
    listening.listen(0)
    return listening, listening.getsockname()

def refused():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return unused.getsockname()

def failing(address, blocking):
    with socket.socket() as client:
        client.setblocking(blocking)
        error = client.connect_ex(address)
        if error == errno.EINPROGRESS:
            select.select([], [client], [], 20)
            error = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            assert client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
        assert error == errno.ECONNREFUSED

def slow(listening, address):
    "The backlog is full, so the first SYN is dropped."
    waiting = [socket.socket() for _ in range(3)]
    for client in waiting:
        client.setblocking(False)
        client.connect_ex(address)
    accepting = threading.Timer(0.5, lambda: [listening.accept() for _ in range(3)])
    accepting.daemon = True # who of the four finds no room gives up when its socket is closed
    accepting.start()
    begun = time.monotonic()
    with socket.socket() as client:
        client.settimeout(None)
        client.connect(address)
    assert time.monotonic() - begun > 0.4

what, times = sys.argv[1], int(sys.argv[2])
if what in ("blocking", "nonblocking"):
    address = refused()
    for _ in range(times):
        failing(address, what == "blocking")
else:
    listening, address = server()
    for _ in range(times):
        with socket.socket() as client:
            client.connect(address)
            listening.accept()[0].close()
    if what == "slow":
        slow(listening, address)
print("done", flush=True)
select.select([], [], [], 1.2)
print("written", flush=True)
sys.stdin.read()
"""


def counted_after(host, what, times):
    environment = preloaded(LIBRARY, "*", MCPOOL_STATS=str(host.stats))
    with subprocess.Popen([PYTHON, "-c", CONNECTS, what, str(times)], env=environment, stdin=subprocess.PIPE,
                          stdout=subprocess.PIPE, text=True) as client:
        assert [client.stdout.readline() for _ in range(2)] == ["done\n", "written\n"]
        done = host.mcpool("stat", "--json", client.pid)
        table = host.mcpool("stat", client.pid).stdout
        client.stdin.close()
    return only_server(json.loads(done.stdout)["processes"][0]), table


@pytest.mark.parametrize("what", ["blocking", "nonblocking"])
def test_failed_connects_are_counted_once(host, what):
    counted, table = counted_after(host, what, 3)
    assert (counted["connects"], counted["connect_failed"], counted["connects_timed"]) == (3, 3, 0)
    assert "  real connects that failed: 3\n" in table


def test_one_slow_connect_hardly_moves_the_usual_one(host):
    counted, _ = counted_after(host, "slow", 20)
    buckets = counted["connect_duration_seconds"]["buckets"]
    assert counted["connects_timed"] - buckets["0.25"] == 1, "one connect was slow"
    mean = counted["connect_us"] / counted["connects_timed"]
    assert 0 < counted["usual_connect_us"] <= 1000 < mean
