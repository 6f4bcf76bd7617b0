"""mcpool doctor: each sentence, from processes that do what it tells of, and from files with made counters."""

import json
import os
import re
import subprocess
import time

import pytest

from observed import SHIM
from support import LIBRARY, PYTHON, Memcached, die_with_parent, preloaded
from test_foreign import SANITIZED
from test_stat import HEADER, only_server, write_file

DRY_RUN_AT = 36
SINCE_AT = HEADER.size - 24 - 8


def told(host, *arguments):
    """The findings, in order."""
    return json.loads(host.mcpool("doctor", "--json", *arguments).stdout)["findings"]


def sentences(finding, about):
    return [sentence["text"] for sentence in finding["sentences"] if sentence["about"] == about]


def sentence(finding, about):
    [text] = sentences(finding, about)
    return text


# Programs. Each does its work, says so, and waits for the end of its input in a call that the library sees.

START = """
import select, socket, sys
port = int(sys.argv[1])
wait = select.select
def end():
    print("done", flush=True)
    wait([sys.stdin], [], [])
"""

GREENLETS = START + """
from gevent import monkey
wait = monkey.get_original("select", "select")
monkey.patch_all()
import gevent, memcache
def work(number):
    for turn in range(10):
        client = memcache.Client([f"127.0.0.1:{port}"])
        assert client.get(f"key-{number}") in (None, f"value of key-{number}")
        assert client.set(f"key-{number}", f"value of key-{number}")
        assert client.get(f"key-{number}") == f"value of key-{number}"
        gevent.sleep(0.001)
        client.disconnect_all()
gevent.joinall([gevent.spawn(work, number) for number in range(6)], raise_error=True)
end()
"""

STAYS_OPEN = START + """
s = socket.create_connection(("127.0.0.1", port))
for _ in range(200):
    s.sendall(b"get a\\r\\n")
    assert s.recv(5) == b"END\\r\\n"
end()
"""

# The answer has come by the time of the next connect(), which drains it.
LEAVES_UNREAD = START + """
for _ in range(5):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(b"get a\\r\\n")
    assert s.recv(5) == b"END\\r\\n"
    s.sendall(b"get b\\r\\n")
    wait([s], [], [], 10)
    s.close()
end()
"""

NOREPLY = START + """
for _ in range(5):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(b"get a\\r\\n")
    assert s.recv(5) == b"END\\r\\n"
    s.sendall(b"set b 0 0 1 noreply\\r\\nx\\r\\n")
    s.close()
end()
"""

TLS = START + """
for _ in range(3):
    s = socket.create_connection(("127.0.0.1", port))
    s.sendall(b"\\x16\\x03\\x01\\x00\\x01\\x00")
    s.close()
end()
"""


TWO_SERVERS = START + """
for port in map(int, sys.argv[1:]):
    for _ in range(2):
        s = socket.create_connection(("127.0.0.1", port))
        s.sendall(b"get a\\r\\n")
        assert s.recv(5) == b"END\\r\\n"
        s.close()
end()
"""


class Program:
    """A process that has done its work, and waits."""

    def __init__(self, host, source, connects, in_use=0, **more):
        environment = preloaded(LIBRARY, host.server.address, MCPOOL_STATS=str(host.stats), **more)
        self.process = subprocess.Popen([PYTHON, "-c", source, str(host.server.port)], env=environment,
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                        preexec_fn=die_with_parent)
        self.pid = self.process.pid
        try:
            assert self.process.stdout.readline() == "done\n"
            self.wait_until_written(host, connects, in_use)
        except BaseException:
            self.process.kill()
            raise

    def wait_until_written(self, host, connects, in_use):
        deadline = time.monotonic() + 20
        while True:
            counted = [(server["connects"], server["in_use"]) for process in host.seen(self.pid).values()
                       for server in process["servers"]]
            if counted == [(connects, in_use)]:
                return
            assert time.monotonic() < deadline, counted
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)


def test_greenlets(host):
    with Program(host, GREENLETS, 60) as program:
        [finding] = told(host)
        counted = only_server(host.seen()[program.pid])
    assert finding["endpoint"] == host.server.address and finding["pids"] == [program.pid]
    assert not finding["dry_run"]
    assert counted["most_in_use"] == 6
    assert sentence(finding, "need") == "It had up to 6 connections in use at once."
    assert sentence(finding, "holds") == f"Now it holds {counted['idle']} connections: 0 in use, {counted['idle']} idle."
    assert sentence(finding, "server").startswith("Count 6 for it in -c of the server, ")
    assert sentence(finding, "saved").startswith(
        f"Of 60 connects, {counted['reused']} ({counted['reused'] / 0.6:.1f} %) got a pooled connection. ")
    assert re.match(r"The library took about 0\.\d ms of the program's processor time, and spared it about "
                    r"1\.\d ms of connecting\. ", sentence(finding, "cost"))
    assert {sentence["about"] for sentence in finding["sentences"]} == {"saved", "cost", "need", "holds", "server"}


def test_a_connection_that_stays_open(host):
    with Program(host, STAYS_OPEN, 1, 1):
        [finding] = told(host)
    assert sentence(finding, "gain") == (
        "Nothing to gain here: it keeps its connections open. It made 1 connection and has closed none. Do not "
        "preload the library into it.")
    assert sentence(finding, "holds") == "Now it holds 1 connection: 1 in use, 0 idle."
    assert not sentences(finding, "saved")


def test_a_dry_run(host):
    host.client(MCPOOL_DRY_RUN="on").turns(20)
    [finding] = told(host)
    assert finding["dry_run"]
    assert sentence(finding, "saved").startswith(
        "Of 20 connects, 19 (95.0 %) would have got a pooled connection. That would have saved ")
    assert sentence(finding, "gain") == "Pooling is worth it here. To begin, end the dry run."
    assert sentence(finding, "holds") == "Now it has 0 connections in use, and 1 more would be idle."
    assert sentence(finding, "cost").startswith("The library would take about 0.0 ms of ")


def test_switched_off(host):
    awake = NOREPLY.replace("    wait([sys.stdin], [], [])", "    while not wait([sys.stdin], [], [], 0.2)[0]:\n        pass")
    with Program(host, awake, 5) as program:
        assert host.mcpool("off", program.pid).returncode == 0
        [finding] = told(host)
        assert "switched off" in host.mcpool("doctor").stdout.splitlines()[0]
    assert sentence(finding, "off") == (
        "It is switched off: its connections are not pooled or counted now. What follows is of the time before.")
    assert sentences(finding, "fences")


def test_replies_left_unread(host):
    with Program(host, LEAVES_UNREAD, 5):
        [finding] = told(host)
    assert sentence(finding, "unread").startswith(
        "The client left replies unread 5 times (100.0 % of its closes). The library reads them before it "
        "reuses the connection. Look for timeouts ")


def test_replies_left_unread_in_a_dry_run(host):
    # Its waits are not cut, and before them the counters are written a few times in a row only.
    rested = LEAVES_UNREAD.replace("\nend()", "\nimport time\ntime.sleep(4)\nend()")
    with Program(host, rested, 5, MCPOOL_DRY_RUN="on"):
        [finding] = told(host)
    assert sentence(finding, "unread").startswith(
        "The client left replies unread 5 times (100.0 % of its closes). Without the dry run, the library "
        "reads them and reuses most ")


def test_quiet_commands(host):
    with Program(host, NOREPLY, 5):
        [finding] = told(host)
    assert sentence(finding, "fences").startswith(
        "The client ended with a quiet or noreply command 5 times (100.0 % of its closes). ")
    assert not sentences(finding, "unread")


def test_refused(host):
    with Program(host, TLS, 3):
        [finding] = told(host)
    assert sentence(finding, "gain") == (
        "Nothing to gain here until that changes: none of the 3 connections that it closed could be kept. The "
        "reasons are below.")
    assert sentence(finding, "refused") == (
        "3 connections (100.0 % of its closes) were not kept at close(): TLS (the connection is encrypted). Use the "
        "client's own pool, or a proxy on this host that speaks TLS to the server.")


def test_processes_of_a_service_are_told_of_together(host):
    first, second = host.client().turns(10), host.client().turns(5).turns(-3)
    [finding] = told(host)
    assert finding["pids"] == sorted((first.pid, second.pid))
    assert sentence(finding, "need").startswith(
        "Its 2 processes together had at most 2 connections in use at once. The busiest, process ")
    assert f"3 connections (16.7 % of its closes, most in process {second.pid}) were not kept" in sentence(
        finding, "refused")
    [finding] = told(host, first.pid)
    assert finding["pids"] == [first.pid] and not sentences(finding, "refused")


def test_text(host):
    host.client().turns(4)
    host.client(MCPOOL_DRY_RUN="on").turns(2)
    done = host.mcpool("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    live, dry = done.stdout.split("\n\n")
    assert live.startswith(f"python3, 1 process, {host.server.address}\n  - Of 4 connects, ")
    assert dry.startswith(f"python3, 1 process, {host.server.address}, dry run\n  - Of 2 connects, ")
    assert max(map(len, done.stdout.splitlines())) <= 78
    unwrapped = " ".join(done.stdout.split())
    texts = [sentence["text"] for finding in told(host) for sentence in finding["sentences"]]
    assert len(texts) > 8 and all(f" - {text}" in unwrapped for text in texts)


def test_each_server_apart(host):
    with Memcached() as other:
        environment = preloaded(LIBRARY, f"{host.server.address},{other.address}", MCPOOL_STATS=str(host.stats))
        with subprocess.Popen([PYTHON, "-c", TWO_SERVERS, str(host.server.port), str(other.port)], env=environment,
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              preexec_fn=die_with_parent) as process:
            assert process.stdout.readline() == "done\n"
            deadline = time.monotonic() + 20
            while [finding["endpoint"] for finding in told(host)] != [host.server.address, other.address]:
                assert time.monotonic() < deadline
                time.sleep(0.05)
            process.stdin.close()


def test_nothing_to_show(host):
    done = host.mcpool("doctor")
    assert done.returncode == 1 and done.stdout == ""
    assert done.stderr.startswith("mcpool: no process shows counters\n")
    done = host.mcpool("doctor", "--json", os.getpid())
    assert done.returncode == 1 and json.loads(done.stdout) == {"findings": []}
    assert done.stderr.startswith(f"mcpool: process {os.getpid()} shows no counters\n")


# Made counters.

def known_names():
    def read(*path):
        with open(os.path.join(SHIM, *path), encoding="utf-8") as file:
            return file.read()
    stats = re.findall(r'^STAT\((\w+), (\w+), "', read("stats", "stats.def"), re.M)
    reasons = re.findall(r"^REASON\((\w+)", read("base", "reasons.def"), re.M)
    return [f"{kind} {name}" for kind, name in stats], [f"reason {name}" for name in reasons]


def make(host, dry=False, since=None, refused=(), discarded=(), pid=None, without=(), more=(), **counters):
    """A file with these COUNTERS. It lacks those named in WITHOUT and has the reasons MORE as well."""
    stats, reasons = known_names()
    stats = [name for name in stats if name.split()[1] not in without]
    reasons = reasons + [f"reason {name}" for name in more]
    assert set(counters) - set(without) <= {name.split()[1] for name in stats}
    values = [counters.get(name.split()[1], 0) for name in stats]
    values += [dict(refused).get(name.split()[1], 0) for name in reasons]
    values += [dict(discarded).get(name.split()[1], 0) for name in reasons]
    path = write_file(host, stats + reasons, values, pid or os.getpid())
    content = bytearray(path.read_bytes())
    content[DRY_RUN_AT:DRY_RUN_AT + 4] = int(dry).to_bytes(4, "little")
    content[SINCE_AT:SINCE_AT + 8] = int(since if since is not None else time.time()).to_bytes(8, "little", signed=True)
    path.write_bytes(content)


BUSY = {"connects": 1000, "reused": 900, "opened": 100, "kept": 1000, "connect_us_avoided": 5_000_000,
        "most_in_use": 40, "idle": 38, "in_use": 1}


@pytest.mark.parametrize("about, expected, counters", [
    ("saved", "Of 1000 connects, 900 (90.0 %) got a pooled connection. That saved 5.0 s of waiting and 900 ports in "
              "TIME_WAIT.", {}),
    ("saved", "Of 1000 connects, 900 (90.0 %) would have got a pooled connection. That would have saved 5.0 s of "
              "waiting and 900 ports in TIME_WAIT.", {"dry": True}),
    ("saved", "Of 2 connects, 1 (50.0 %) got a pooled connection. That saved 5.0 s of waiting and 1 port in TIME_WAIT.",
     {"connects": 2, "reused": 1}),
    ("saved", None, {"reused": 0}),
    ("gain", None, {}),
    ("gain", "Pooling is worth it here. To begin, end the dry run.", {"dry": True}),
    ("gain", "Nothing to gain here: it keeps its connections open. It made 7 connections and has closed none. Do not "
             "preload the library into it.",
     {"connects": 7, "opened": 7, "reused": 0, "kept": 0, "connect_us_avoided": 0}),
    ("gain", "Nothing is gained so far: the library kept 3 connections, and it has reused none.",
     {"connects": 3, "opened": 3, "reused": 0, "kept": 3, "connect_us_avoided": 0}),
    ("gain", "Nothing to gain here until that changes: none of the 1 connection that it closed could be kept. The "
             "reasons are below.",
     {"connects": 1, "opened": 1, "reused": 0, "kept": 0, "connect_us_avoided": 0, "refused": {"QUIT": 1}}),
    ("gain", "Nothing to gain here: most of its requests go over connections that stay open. The library takes more "
             "time than it saves. Do not preload it here.", {"sends": 50_000_000}),
    ("gain", None, {"sends": 20_000_000}),
    ("gain", "Nothing to gain here: it seldom connects. That is all that was saved in 100.0 h.",
     {"since": time.time() - 360_000}),
    ("gain", None, {"since": time.time() - 290_000}),
    ("gain", None, {"since": time.time() + 1000}),
    ("cost", "The library took about 2.1 ms of the program's processor time, and spared it about 24.3 ms of "
             "connecting. This is an estimate: 2 us for each reused connection, 3 us for each opened one, 0.2 us for "
             "each further request.", {}),
    ("cost", "The library took about 202.1 ms of ", {"sends": 1_001_000}),
    ("cost", "The library would take about 2.1 ms of the program's processor time, and would spare it about 24.3 ms ",
     {"dry": True, "opened": 1000}),
    ("cost", "The library took about 0.3 ms of the program's processor time. This ", {"reused": 0}),
    ("cost", None, {"connects": 0, "reused": 0}),
    ("need", "It had up to 40 connections in use at once.", {}),
    ("need", "How many connections it needs at once is not known: a process has an older version of the library. "
             "Restart it.", {"without": ["most_in_use"]}),
    ("holds", "Now it holds 39 connections: 1 in use, 38 idle.", {}),
    ("holds", "Now it has 1 connection in use, and 38 more would be idle.", {"dry": True}),
    ("server", "Count 40 for it in -c of the server, on each host that runs it, and add what other clients need. The "
               "default of -c is 1024.", {}),
    ("server", "Count 50 for it ", {"idle": 49}),
    ("server", "Count 1024 for it in -c of the server, on each host that runs it, and add what other clients need. "
               "That is more than the default of -c, which is 1024: raise it.", {"most_in_use": 1024}),
    ("unread", "The client left replies unread 75 times (7.0 % of its closes). The library reads them before "
               "it reuses the connection. Look for timeouts that are shorter than the server needs, and for "
               "threads or greenlets that are killed while they wait.",
     {"given_up": 10, "drained": 12, "fences": 7, "refused": {"REPLY_OWED": 20, "REPLY_PARTIAL": 45},
      "discarded": {"DRAIN_TIMEOUT": 3, "DRAIN_LIMIT": 2}}),
    ("unread", None, {"drained": 7, "fences": 8}),
    ("fences", "The client ended with a quiet or noreply command 1 time (0.1 % of its closes). Each time the library "
               "sends the server one more request. Let the client ask for replies if there are many.", {"fences": 1}),
    ("fences", None, {}),
    ("refused", "11 connections (1.1 % of its closes) were not kept at close(): AUTH (the connection is logged in, or "
                "the server asks for a login). Nothing in this library: it never shares a login. Where all clients "
                "have the same login, a proxy on this host can hold it.", {"refused": {"AUTH": 11}}),
    ("refused", "A few were not kept at close(): 2 for TLS, 3 for QUIT. That needs no attention; `mcpool explain` says "
                "what it means.", {"refused": {"QUIT": 3, "TLS": 2}}),
    ("refused", None, {}),
    ("refused", "5 connections not kept for reasons that this mcpool does not know. Update it.",
     {"refused": {"FUTURE": 5}, "more": ["FUTURE"]}),
    ("discarded", "90 connections (9.0 % of its closes) were discarded while idle: IDLE_TIMEOUT (it was idle for longer "
                  "than MCPOOL_IDLE_TIMEOUT). Nothing: the program needs fewer connections than before. Keep the "
                  "variable below idle_timeout of the server.", {"discarded": {"IDLE_TIMEOUT": 90}}),
    ("discarded", "A few were discarded while idle: 1 for TOO_OLD. That ", {"discarded": {"TOO_OLD": 1}}),
    ("failed", "The server could not be reached, or refused, in 20 connects (20.0 % of those opened). The program got "
               "the error. Look at the server, and at its -c.", {"connect_failed": 20}),
    ("failed", "The program got an error 1 time because no new connection could take the place of a pooled one. Look "
               "at the server, and at its -c.", {"swap_failed": 1}),
    ("failed", None, {}),
])
def test_sentence(host, about, expected, counters):
    make(host, **{**BUSY, **counters})
    [finding] = told(host)
    if expected is None:
        assert not sentences(finding, about)
    elif expected.endswith("."):
        assert sentence(finding, about) == expected
    else:
        assert sentence(finding, about).startswith(expected)


def test_sums_of_several_processes(host):
    with subprocess.Popen(["sleep", "60"]) as one, subprocess.Popen(["sleep", "60"]) as other:
        make(host, pid=one.pid, **{**BUSY, "most_in_use": 9, "idle": 12, "drained": 5, "fences": 90})
        make(host, pid=other.pid, refused={"QUIT": 40}, discarded={"TOO_OLD": 60},
             **{**BUSY, "most_in_use": 11, "idle": 3, "given_up": 50, "drained": 60, "fences": 10})
        [finding] = told(host)
        one.kill()
        other.kill()
    assert finding["service"] == "sleep" or ".service" in finding["service"]
    assert sentence(finding, "need") == (f"Its 2 processes together had at most 20 connections in use at once. The "
                                         f"busiest, process {other.pid}, had 11.")
    assert sentence(finding, "holds") == "Now it holds 17 connections: 2 in use, 15 idle."
    assert sentence(finding, "server").startswith("Count 24 for it ")
    assert f"unread 50 times (2.5 % of its closes, most in process {other.pid})" in sentence(finding, "unread")
    assert f"100 times (4.9 % of its closes, most in process {one.pid})" in sentence(finding, "fences")
    assert sentence(finding, "refused").startswith(
        f"40 connections (2.0 % of its closes, most in process {other.pid}) were ")
    assert sentence(finding, "discarded").startswith(
        f"60 connections (2.9 % of its closes, most in process {other.pid}) were ")


def test_every_reason_and_impossible_numbers(host):
    """Under sanitizers: the longest texts, and sums that overflow."""
    _, reasons = known_names()
    every = {name.split()[1]: (1 << 64) - 1 - i for i, name in enumerate(reasons)}
    make(host, since=-(1 << 62), refused=every, discarded=every,
         **{name: (1 << 64) - 1 for name in [*BUSY, "sends", "drained", "given_up", "connect_failed", "swap_failed"]})
    expect_clean(host)
    make(host, refused={name: 1 for name in every}, discarded={name: 1 for name in every},
         **{**BUSY, "kept": 100_000})
    text = expect_clean(host)
    assert text.count("1 for ") == 2 * len(every)


def expect_clean(host):
    if not os.path.exists(SANITIZED):
        pytest.skip("no sanitized command: make build/asan/mcpool")
    for arguments in (["doctor"], ["doctor", "--json"]):
        done = subprocess.run([SANITIZED, *arguments], env=host.environment(), capture_output=True, text=True,
                              timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, "")
    return json.dumps(json.loads(done.stdout))


def test_names_of_processes_cannot_control_the_terminal(host, tmp_path):
    os.symlink("/bin/sleep", tmp_path / "a\"\033[2Jb")
    with subprocess.Popen([tmp_path / "a\"\033[2Jb", "60"]) as process:
        make(host, pid=process.pid, **BUSY)
        done = host.mcpool("doctor")
        [finding] = told(host)
        process.kill()
    assert "\033" not in done.stdout
    assert finding["pids"] == [process.pid]
