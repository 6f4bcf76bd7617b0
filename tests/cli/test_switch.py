"""mcpool off, on, dry and flush: processes follow without a restart, and obey only their user and root. The command
runs under sanitizers."""

import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

import pytest

import observed
from observed import CLIENT, Client, mcpool
from support import LIBRARY, OFF, PYTHON, die_with_parent, preloaded, stats_of, wish_for
from test_foreign import under_sanitizers  # noqa: F401

def beating(host, **more):
    """A client that waits a fifth of a second at a time, so it follows soon."""
    return host.client(arguments=["0.2"], **more)


def only(host, client):
    (server,) = host.seen(client.pid)[client.pid]["servers"]
    return server


def sockets(pid):
    """How many TCP sockets the process has."""
    inodes = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        try:
            found = re.match(r"socket:\[(\d+)\]", os.readlink(f"/proc/{pid}/fd/{fd}"))
        except FileNotFoundError:
            continue
        if found:
            inodes.add(found.group(1))
    with open(f"/proc/{pid}/net/tcp", encoding="ascii") as table:
        return sum(line.split()[9] in inodes for line in table)


def switched(host, what, *arguments):
    done = host.mcpool(what, *arguments)
    state = {"dry": "dry run", "flush": "flushed"}.get(what, what)
    said = "".join(f"{pid}: {state}\n" for pid in arguments if isinstance(pid, int))
    assert (done.returncode, done.stdout, done.stderr) == (0, said, "")


def turn(client, number):
    """As Client.turns(), of a process that may be off and count nothing."""
    client.process.stdin.write(f"{number}\n")
    client.process.stdin.flush()
    assert client.process.stdout.readline() == "done\n"


def test_off_closes_what_is_idle_and_on_pools_again(host):
    client = beating(host).turns(3)
    assert sockets(client.pid) > 0
    switched(host, "off", client.pid)
    assert sockets(client.pid) == 0
    assert host.seen()[client.pid]["mode"] == "off"
    assert only(host, client)["discarded"] == {"SWITCHED": 1}
    turn(client, 5)
    assert sockets(client.pid) == 0
    assert (only(host, client)["connects"], only(host, client)["reused"]) == (3, 2)
    assert "switched off" in host.mcpool("stat").stdout
    assert "switched off" in host.mcpool("check", client.pid).stdout
    switched(host, "on", client.pid)
    assert host.seen()[client.pid]["mode"] == "on"
    client.turns(4)
    assert (only(host, client)["connects"], only(host, client)["reused"]) == (7, 5)
    assert [entry for entry in os.listdir(host.stats) if "switch" in entry] == []


@pytest.mark.skipif(not shutil.which("strace"), reason="no strace here")
def test_off_makes_every_call_a_plain_one(host, tmp_path):
    client = beating(host).turns(3)
    switched(host, "off", client.pid)
    calls = "socket,connect,close,dup3,fcntl,getsockopt,setsockopt,sendto,recvfrom"
    with subprocess.Popen(["strace", "-p", str(client.pid), "-o", str(tmp_path / "calls"), "-e", f"trace={calls}"],
                          stderr=subprocess.PIPE, text=True, preexec_fn=die_with_parent) as trace:
        assert "attached" in trace.stderr.readline()
        time.sleep(0.2)
        turn(client, 20)
        trace.terminate()
    made = re.findall(r"^(\w+)\((\d*)", (tmp_path / "calls").read_text(encoding="utf-8"), re.M)
    fds = {fd for name, fd in made if name == "connect"}
    names = [name for name, fd in made if name == "socket" or fd in fds]
    # The files of the look of each second are opened and closed as well.
    assert names.count("close") >= 20
    names = [name for name in names if name != "close"]
    assert names == ["socket", "connect", "sendto", "recvfrom"] * 20


def test_dry_reuses_nothing_and_counts(host):
    client = beating(host).turns(2)
    switched(host, "dry", client.pid)
    assert sockets(client.pid) == 0
    before = stats_of(host.server.port)["total_connections"]
    client.turns(5)
    assert sockets(client.pid) == 0
    assert int(stats_of(host.server.port)["total_connections"]) - int(before) == 6
    assert only(host, client)["reused"] == 1 + 4
    assert host.seen()[client.pid]["dry_run"]
    switched(host, "on", client.pid)
    client.turns(3)
    assert only(host, client)["reused"] == 5 + 2


def test_a_dry_run_is_ended(host):
    client = beating(host, MCPOOL_DRY_RUN="on").turns(3)
    switched(host, "on", client.pid)
    client.turns(3)
    assert only(host, client)["reused"] == 2 + 2
    assert sockets(client.pid) > 0


def test_flush_closes_what_is_idle(host):
    client = beating(host).turns(2)
    switched(host, "flush", client.pid)
    assert (only(host, client)["discarded"], only(host, client)["idle"]) == ({"FLUSHED": 1}, 0)
    client.turns(2)
    assert only(host, client)["reused"] == 2
    assert host.seen()[client.pid]["mode"] == "on"


def test_flush_of_one_server(host):
    client = beating(host).turns(2)
    switched(host, "flush", client.pid, "127.0.0.1:1")
    assert only(host, client)["idle"] == 1
    switched(host, "flush", client.pid, host.server.address)
    assert only(host, client)["idle"] == 0


HOLDER = """
import select, socket, sys
def wait():
    while len(sys.argv) > 2 and not select.select([sys.stdin], [], [], 0.2)[0]: pass
    sys.stdin.readline()
def dial():
    return socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def ask(s):
    s.sendall(b"get a\\r\\n")
    assert s.recv(5) == b"END\\r\\n"
first = dial(); ask(first); first.close()
held = [dial(), dial()]
for s in held: ask(s)
print("held", flush=True)
wait()
for s in held:
    ask(s)
    assert s.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 0
    assert s.connect_ex(s.getpeername()) == 106
    s.close()
print("closed", flush=True)
wait()
"""


def start(host, program, *arguments):
    environment = preloaded(LIBRARY, host.server.address, MCPOOL_STATS=str(host.stats))
    return subprocess.Popen([PYTHON, "-c", program, str(host.server.port), *arguments], env=environment,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
                            preexec_fn=die_with_parent)


@pytest.mark.parametrize("what", ["off", "flush"])
def test_what_is_in_use_stays_right_and_is_not_kept(host, what):
    with start(host, HOLDER) as process:
        assert process.stdout.readline() == "held\n"
        # It waits in read(), which is not cut: it follows at its next calls.
        done = host.mcpool(what, process.pid)
        assert done.returncode == 1
        assert done.stderr == (f"mcpool: process {process.pid} has not followed yet: it sleeps or computes, "
                               "and follows at its\n    next call that connects, closes a connection or waits\n")
        process.stdin.write("\n")
        assert process.stdout.readline() == "closed\n"
        assert sockets(process.pid) == 0
        process.stdin.write("\n")
        process.wait(20)
    assert os.listdir(host.stats) == []


@pytest.mark.parametrize("what, outcome, reasons", [
    ("off", "refused", {"SWITCHED": 2}), ("dry", "refused", {"SWITCHED": 2}),
    ("flush", "discarded", {"FLUSHED": 2})])
def test_what_is_in_use_is_not_kept(host, what, outcome, reasons):
    with start(host, HOLDER, "beats") as process:
        assert process.stdout.readline() == "held\n"
        switched(host, what, process.pid)
        process.stdin.write("\n")
        assert process.stdout.readline() == "closed\n"
        assert sockets(process.pid) == 0
        deadline = time.monotonic() + 10
        while host.seen()[process.pid]["servers"][0][outcome] != reasons:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.stdin.write("\n")
        process.wait(20)


# Threads look up keys whose value embeds the key, and never stop. A line on stdin ends it.
LOADED = """
import socket, sys, threading
port, threads = int(sys.argv[1]), int(sys.argv[2])
stop, wrong, failed, done = False, [], [], [0] * threads
def work(i):
    turn = 0
    while not stop:
        turn += 1
        key = b"k%d-%d" % (i, turn % 50)
        value = b"<" + key + b">"
        want = b"STORED\\r\\nVALUE %s 0 %d\\r\\n%s\\r\\nEND\\r\\n" % (key, len(value), value)
        try:
            s = socket.create_connection(("127.0.0.1", port), 10)
            s.sendall(b"set %s 0 0 %d\\r\\n%s\\r\\nget %s\\r\\n" % (key, len(value), value, key))
            got = b""
            while len(got) < len(want):
                more = s.recv(len(want) - len(got))
                if not more:
                    raise OSError("closed")
                got += more
            if got != want:
                wrong.append((want, got))
            s.close()
            done[i] += 1
        except OSError as error:
            failed.append(error)
workers = [threading.Thread(target=work, args=(i,)) for i in range(threads)]
for worker in workers: worker.start()
print("loaded", flush=True)
sys.stdin.readline()
stop = True
for worker in workers: worker.join()
print(sum(done), len(wrong), len(failed), wrong[:1], failed[:1], flush=True)
sys.stdin.readline()
"""


def loaded(host):
    process = start(host, LOADED, "4")
    assert process.stdout.readline() == "loaded\n"
    return process


def test_a_hundred_switches_under_load(host):
    processes = [loaded(host) for _ in range(4)]
    pids = [process.pid for process in processes]
    deadline = time.monotonic() + 20
    while not set(pids) <= set(host.seen()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for number in range(25):
        switched(host, ("off", "on", "dry", "flush", "off", "dry", "on")[number % 7], *pids)
    switched(host, "off", *pids)
    for process in processes:
        process.stdin.write("\n")
        turns, wrong, failed = map(int, process.stdout.readline().split()[:3])
        assert turns > 100 and (wrong, failed) == (0, 0)
        assert sockets(process.pid) == 0
        process.kill()
        process.communicate()


FORKER = """
import os, select, socket, sys
def turn():
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    s.sendall(b"get a\\r\\n")
    assert s.recv(5) == b"END\\r\\n"
    s.close()
turn()
print("ready", flush=True)
while not select.select([sys.stdin], [], [], 0.2)[0]: pass
sys.stdin.readline()
if os.fork() == 0:
    for _ in range(4): turn()
    print(os.getpid(), flush=True)
    while True:
        select.select([], [], [], 0.1)
        turn()
os.wait()
"""


def test_children_have_the_mode_of_their_parent(host):
    with start(host, FORKER) as process:
        assert process.stdout.readline() == "ready\n"
        switched(host, "off", process.pid)
        process.stdin.write("\n")
        child = int(process.stdout.readline())
        try:
            assert sockets(child) == 0
            seen = host.seen(child)[child]
            assert (seen["mode"], seen["servers"]) == ("off", [])
            assert re.search(rf"^ +{child}  - ", host.mcpool("stat").stdout, re.M)
            switched(host, "on", child)
            deadline = time.monotonic() + 10
            while not any(server["reused"] for server in host.seen(child)[child]["servers"]):
                assert time.monotonic() < deadline
                time.sleep(0.05)
        finally:
            os.kill(child, signal.SIGKILL)


def test_processes_that_cannot_be_switched(host):
    disabled = host.client(MCPOOL_DISABLE="on").turns(1)
    without = host.client(library=None).turns(1)
    quiet = host.client()
    for pid, why in ((disabled.pid, "MCPOOL_DISABLE is on"), (without.pid, "does not have the library"),
                     (quiet.pid, "has not connected over TCP")):
        done = host.mcpool("off", pid)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"mcpool: process {pid} cannot be switched: it shows no counters\n")
        assert why in done.stderr
    gone = host.mcpool("off", 2 ** 22 + 1)
    assert (gone.returncode, gone.stderr) == (1, f"mcpool: no process {2 ** 22 + 1}\n")


def test_without_a_directory_the_command_says_so(host):
    client = Client(host.server, host.stats / "missing")
    host.clients.append(client)
    turn(client, 2)
    done = mcpool("off", client.pid, environment=preloaded(None, None, MCPOOL_STATS=str(client.stats)))
    assert done.returncode == 1
    assert "can make no file of counters" in done.stderr and "no such directory" in done.stderr


@pytest.mark.parametrize("arguments", [["off"], ["off", "x"], ["on", "0"], ["dry", "1", "127.0.0.1:1"],
                                       ["flush", "127.0.0.1:1"], ["flush", "1", "localhost:1"],
                                       ["flush", "1", "10.0.0.0/8:1"], ["off", "--now", "1"]])
def test_wrong_arguments(arguments):
    done = mcpool(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"mcpool {arguments[0]} --help" in done.stderr


def test_a_port_is_no_process(host):
    """It would be flushed for all its servers."""
    client = host.client().turns(1)
    assert sockets(client.pid) > 0
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    done = host.mcpool("flush", client.pid, gone.pid)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"an ENDPOINT is ADDRESS:PORT, as 127.0.0.1:{gone.pid}" in done.stderr
    assert sockets(client.pid) > 0


def test_the_wish_for_a_dead_process_is_removed(host):
    client = host.client().turns(1)
    put(*wish(host, client, OFF))
    client.kill()
    assert host.seen() == {}
    host.mcpool("off", beating(host).turns(1).pid)
    assert len(os.listdir(host.stats)) == 1


def wish(host, client, what, **changes):
    """Where a wish is looked for, and its bytes."""
    name, content = wish_for(client.pid, what, **changes)
    return host.stats / name, content


def put(path, content, mode=0o644):
    path.write_bytes(content)
    path.chmod(mode)


def modes(host, clients):
    """The modes of the processes after each has looked again."""
    time.sleep(1.5)
    for client in clients:
        turn(client, 1)
    time.sleep(1.5)
    return [host.seen()[client.pid]["mode"] for client in clients]


def strange_files(host, tmp_path):
    """Makes the files, each for a process of its own, and returns the processes."""
    clients = [beating(host).turns(1) for _ in range(9)]
    paths, contents = zip(*(wish(host, client, OFF) for client in clients))
    put(paths[0], contents[0], 0o666)
    put(tmp_path / "linked", contents[1])
    paths[1].symlink_to(tmp_path / "linked")
    put(tmp_path / "hard", contents[2])
    os.link(tmp_path / "hard", paths[2])
    os.mkfifo(paths[3])
    paths[4].mkdir()
    put(paths[5], contents[5][:-1])
    put(paths[6], wish(host, clients[6], OFF, pid=clients[0].pid)[1])
    put(paths[7], wish(host, clients[7], 9)[1])
    put(paths[8], wish(host, clients[8], OFF, generation=0)[1])
    return clients


def test_strange_files_are_not_followed(host, tmp_path):
    good = beating(host).turns(1)
    put(*wish(host, good, OFF))
    assert modes(host, [good, *strange_files(host, tmp_path)]) == ["off"] + ["on"] * 9


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
OTHER = ["setpriv", "--reuid=65533", "--regid=65533", "--clear-groups", "--"]


@needs_root
def test_other_users_are_refused(host):
    client, asked = beating(host).turns(1), beating(host).turns(1)
    path, content = wish(host, client, OFF)
    put(path, content)
    os.chown(path, 65533, 65533)
    done = subprocess.run([*OTHER, observed.COMMAND, "off", str(asked.pid)], env=host.environment(), text=True,
                          capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"mcpool: process {asked.pid} is another user's; ask as root\n"
    assert modes(host, [client, asked]) == ["on", "on"]


@needs_root
def test_root_switches_the_process_of_another_user(host):
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        host.stats = pathlib.Path(folder)
        host.stats.chmod(0o1777)
        client = beating(host, user=65533).turns(1)
        assert os.stat(f"/proc/{client.pid}").st_uid == 65533
        switched(host, "off", client.pid)
        assert sockets(client.pid) == 0
        client.end()


# The folder of counters is at $1.
APART = """mount --make-rprivate /
%s
shift
exec "$@"
"""


class Apart:
    """A client in mount and PID namespaces of its own, for which PREPARE was run."""

    def __init__(self, host, prepare, stats):
        environment = preloaded(None, None, MCPOOL_STATS=str(stats), MCPOOL_SERVERS=host.server.address)
        self.process = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "sh", "-ec", APART % prepare, "sh", host.stats, "env",
             f"LD_PRELOAD={LIBRARY}", PYTHON, "-c", CLIENT, str(host.server.port), "0.2"],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)

    def __enter__(self):
        self.process.stdin.write("3\n")
        self.process.stdin.flush()
        if self.process.stdout.readline() != "done\n":
            self.__exit__()
            pytest.skip("no namespaces here")
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children", encoding="ascii") as file:
            self.pid = int(file.read())
        return self

    def __exit__(self, *_):
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@needs_root
def test_a_container_that_shares_its_directory(host):
    with Apart(host, "", host.stats) as client:
        assert [entry.split("-")[0] for entry in os.listdir(host.stats)] == ["1"]
        switched(host, "off", client.pid)
        assert sockets(client.pid) == 0
        switched(host, "on", client.pid)
    assert os.listdir(host.stats) == []


@needs_root
def test_nothing_is_written_into_a_container(host):
    with Apart(host, 'mount -t tmpfs none "$1"', host.stats) as client:
        inside = f"/proc/{client.pid}/root{host.stats}"
        deadline = time.monotonic() + 5
        while not os.listdir(inside):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        before = os.listdir(inside)
        done = host.mcpool("off", client.pid)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith(f"mcpool: process {client.pid} cannot be switched from here: its counters are in "
                                      "its container,\n")
        assert "Run mcpool inside, where the process is 1," in done.stderr
        assert os.listdir(inside) == before and os.listdir(host.stats) == []
        assert sockets(client.pid) > 0
