"""Where mcpool stat and check look for counters, and what they say when there are none."""

import json
import os
import re
import shutil
import stat
import subprocess
import time

import pytest

from observed import CLIENT, COMMAND, mcpool
from support import LIBRARY, PYTHON, die_with_parent, preloaded
from test_stat import copy_of, in_our_name, own_name

ONLY_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
USER = 200000 + os.getpid()
FALLBACK = f"/tmp/mcpool-{USER}"
NEXT_STEP = """    A process shows counters from its first connection to a pooled server on.
    `mcpool check PID` says why it shows none.
"""


def remove(path):
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    elif os.path.lexists(path):
        os.unlink(path)


@pytest.fixture
def fallback():
    """No directory of the user, before and after."""
    remove(FALLBACK)
    yield FALLBACK
    remove(FALLBACK)


@pytest.fixture
def tools(tmp_path):
    """The library and the command, where another user can read them."""
    for name in (LIBRARY, COMMAND):
        shutil.copy(name, tmp_path)
    for folder in (tmp_path, *tmp_path.parents):
        if not os.stat(folder).st_mode & 0o001:
            folder.chmod(0o711)
    return tmp_path


AS_USER = ["setpriv", "--reuid", str(USER), "--regid", str(USER), "--clear-groups"]


def apart():
    """What runs a command that can mount something of its own."""
    command = ["unshare", "--mount"]
    if subprocess.run([*command, "mount", "-t", "tmpfs", "none", "/mnt"], capture_output=True,
                      check=False).returncode != 0:
        pytest.skip("nothing can be mounted here")
    return command


class Lonely:
    """A process of a user of its own, with an empty /run."""

    def __init__(self, server, tools, **more):
        self.tools = tools
        environment = preloaded(str(tools / "libmcpool.so"), server.address, **more)
        for name in ("MCPOOL_STATS", "XDG_RUNTIME_DIR"):
            if name not in more:
                environment.pop(name, None)
        script = 'mount -t tmpfs none /run; exec "$@"'
        self.process = subprocess.Popen(
            [*apart(), "sh", "-ec", script, "sh", *AS_USER, PYTHON, "-c", CLIENT, str(server.port)],
            env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=die_with_parent)
        self.pid = self.process.pid

    def __enter__(self):
        self.process.stdin.write("1\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.communicate()

    def mcpool(self, *arguments, root=False):
        """The command of its user, or of root, which sees the same directories."""
        environment = {name: value for name, value in os.environ.items()
                       if name not in ("MCPOOL_STATS", "XDG_RUNTIME_DIR")}
        return subprocess.run(["nsenter", "--mount", f"--target={self.pid}", "--", *([] if root else AS_USER),
                               self.tools / "mcpool", *map(str, arguments)], env=environment,
                              capture_output=True, text=True, timeout=60, check=False)

    def is_shown(self, root):
        deadline = time.monotonic() + 5
        while True:
            done = self.mcpool("stat", "--json", root=root)
            for process in json.loads(done.stdout)["processes"]:
                if process["pid"] == self.pid and process["servers"][0]["connects"] == 1:
                    return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.1)


@ONLY_ROOT
def test_without_any_directory_tmp_has_one(server, tools, fallback):
    with Lonely(server, tools) as lonely:
        assert lonely.is_shown(root=False) and lonely.is_shown(root=True)
        found = os.lstat(fallback)
        assert stat.S_ISDIR(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o700
        assert found.st_uid == USER
        lonely.process.communicate()
        assert os.listdir(fallback) == []


def not_ours():
    os.mkdir(FALLBACK, 0o700)
    os.chown(FALLBACK, USER + 1, USER)


def open_to_others():
    os.mkdir(FALLBACK, 0o700)
    os.chown(FALLBACK, USER, USER)
    os.chmod(FALLBACK, 0o750)


def a_link():
    os.symlink("/tmp", FALLBACK)


@ONLY_ROOT
@pytest.mark.parametrize("prepare, to_user, of_process", [
    (not_ours, "Permission denied", "it belongs to another user"),
    (open_to_others, "not used: other users have access, mode 0750", "other users have access"),
    (a_link, "not used: not a directory, or a link", "not a directory, or a link")])
def test_where_there_is_none_it_says_which_were_tried(server, tools, fallback, prepare, to_user, of_process):
    prepare()
    with Lonely(server, tools) as lonely:
        done = lonely.mcpool("stat")
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"""mcpool: no process shows counters
mcpool: uid {USER} looked into
    /run/mcpool: no such directory
    $XDG_RUNTIME_DIR/mcpool: XDG_RUNTIME_DIR is not set
    {fallback}: {to_user}
    below /proc/PID/root of each process in other namespaces: nothing to show
{NEXT_STEP}    If it can write to no directory, set MCPOOL_STATS to one for it and for mcpool.
    Only root sees the processes of other users.
"""
        why = f"""    Its user, uid {USER}, can make no file of counters:
        /run/mcpool: no such directory
        {fallback}: {of_process}
    Set MCPOOL_STATS to a directory that it can write to, for it and for mcpool.
"""
        for root in (False, True):
            done = lonely.mcpool("stat", lonely.pid, root=root)
            assert (done.returncode, done.stdout) == (1, "")
            assert done.stderr == f"mcpool: process {lonely.pid} shows no counters\n{why}"
            done = lonely.mcpool("check", lonely.pid, root=root)
            assert done.returncode == 0
            assert f"note: it shows no counters\n{why}" in done.stdout


@ONLY_ROOT
def test_a_directory_that_the_process_cannot_write_to(server, tools, fallback):
    folder = tools / "stats"
    folder.mkdir(mode=0o755)
    with Lonely(server, tools, MCPOOL_STATS=str(folder)) as lonely:
        done = mcpool("stat", lonely.pid, environment=dict(os.environ, MCPOOL_STATS=str(folder)))
        assert f"        {folder}: it cannot write there\n" in done.stderr
        folder.chmod(0o1777)
        done = mcpool("stat", lonely.pid, environment=dict(os.environ, MCPOOL_STATS=str(folder)))
        assert "can make no file" not in done.stderr


# What root reads of the directories of users. Each has a file that tells of this process.

def default_environment():
    return {name: value for name, value in os.environ.items()
            if name not in ("MCPOOL_STATS", "XDG_RUNTIME_DIR")}


def fill(host, folder, owner=USER, mode=0o700):
    folder.mkdir(exist_ok=True)
    copy_of(host, host.client().turns(1), own_name(), in_our_name).rename(folder / own_name())
    os.chown(folder, owner, owner)
    folder.chmod(mode)
    return folder


def is_shown(*before):
    done = subprocess.run([*before, COMMAND, "stat", "--json"], env=default_environment(), capture_output=True,
                          text=True, timeout=60, check=False)
    return os.getpid() in [process["pid"] for process in json.loads(done.stdout)["processes"]]


@ONLY_ROOT
@pytest.mark.parametrize("owner, mode, name, shown", [
    (USER, 0o700, FALLBACK, True), (USER, 0o750, FALLBACK, False), (USER, 0o707, FALLBACK, False),
    (USER + 1, 0o700, FALLBACK, False), (USER, 0o700, f"/tmp/mcpool-0{USER}", False),
    (USER, 0o700, f"/tmp/mcpool-{USER}x", False)])
def test_root_reads_only_what_belongs_to_the_user_of_its_name(host, tmp_path, fallback, owner, mode, name,
                                                              shown):
    try:
        os.rename(fill(host, tmp_path / "made", owner, mode), name)
    except OSError:
        shutil.move(tmp_path / "made", name)
        os.chown(name, owner, owner)
    try:
        assert is_shown() == shown
    finally:
        remove(name)


@ONLY_ROOT
def test_root_follows_no_link_of_a_user(host, tmp_path, fallback):
    os.symlink(fill(host, tmp_path / "made"), fallback)
    assert not is_shown()


@ONLY_ROOT
@pytest.mark.parametrize("owner, script, shown", [
    (USER, "", True), (USER + 1, "", False),
    (USER, "mv mcpool elsewhere; ln -s elsewhere mcpool", False),
    (USER, "chown root .", False)])
def test_root_reads_the_runtime_directories_of_users(host, tmp_path, owner, script, shown):
    made = fill(host, tmp_path / "mcpool", owner)
    before = [*apart(), "sh", "-ec", f"""mount -t tmpfs none /run
        mkdir -p /run/user/{USER} && chown {USER} /run/user/{USER}
        cp -a {made} /run/user/{USER}/mcpool
        (cd /run/user/{USER}; {script or 'true'})
        exec "$@" """, "sh"]
    assert is_shown(*before) == shown


@ONLY_ROOT
def test_a_runtime_directory_of_another_user_is_not_used(host, tmp_path):
    """Root has it after `sudo -E`."""
    fill(host, tmp_path / "mcpool", os.geteuid())
    environment = dict(default_environment(), XDG_RUNTIME_DIR=str(tmp_path))
    assert os.getpid() in [process["pid"] for process in json.loads(
        mcpool("stat", "--json", environment=environment).stdout)["processes"]]
    os.chown(tmp_path, USER, USER)
    done = mcpool("stat", environment=environment)
    assert str(os.getpid()) not in done.stdout
    if done.returncode == 1:
        assert f"    {tmp_path}: not used: it belongs to uid {USER}\n" in done.stderr


@ONLY_ROOT
def test_the_runtime_directory_of_the_process_is_looked_at_too(server, tools, fallback):
    not_ours()
    runtime = tools / "runtime"
    runtime.mkdir(mode=0o755)
    with Lonely(server, tools, XDG_RUNTIME_DIR=str(runtime)) as lonely:
        assert f"        {runtime}/mcpool: it cannot be made\n" in lonely.mcpool("stat", lonely.pid, root=True).stderr
        os.chown(runtime, USER, USER)
        assert "can make no file" not in lonely.mcpool("stat", lonely.pid, root=True).stderr


@ONLY_ROOT
def test_a_directory_is_read_once(host, tmp_path):
    """It is a user's and that of XDG_RUNTIME_DIR."""
    made = fill(host, tmp_path / "mcpool", 0)
    script = f"""mount -t tmpfs none /run
        mkdir -p -m 755 /run/user/0
        cp -a {made} /run/user/0/mcpool
        XDG_RUNTIME_DIR=/run/user/0 exec {COMMAND} stat --json"""
    done = subprocess.run([*apart(), "sh", "-ec", script], env=default_environment(), capture_output=True,
                          text=True, timeout=60, check=False)
    assert [process["pid"] for process in json.loads(done.stdout)["processes"]].count(os.getpid()) == 1


# Why a process shows none.

def why(host, pid):
    done = host.mcpool("stat", pid)
    assert (done.returncode, done.stdout) == (1, "")
    first, rest = done.stderr.split("\n", 1)
    assert first == f"mcpool: process {pid} shows no counters"
    checked = host.mcpool("check", pid)
    if "yes: it has" in checked.stdout:
        assert f"note: it shows no counters\n{rest}" in checked.stdout
    return rest


def test_nothing_was_tried_yet(host):
    client = host.client().turns(0)
    assert why(host, client.pid) == f"""    It has not connected over TCP to a memcached that MCPOOL_SERVERS ({host.server.address})
    names, or not yet.
"""


HOLDER = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])))
s.sendall(b"get a\\r\\n")
assert s.recv(5) == b"END\\r\\n"
print("done", flush=True)
sys.stdin.read()
"""


class Holder:
    """A process that keeps its connection."""

    def __init__(self, host, address="127.0.0.1", before=(), **variables):
        environment = preloaded(LIBRARY, host.server.address,
                                **{"MCPOOL_STATS": str(host.stats), **variables})
        self.process = subprocess.Popen(
            [*before, PYTHON, "-c", HOLDER, address, str(host.server.port)], env=environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        self.pid = self.process.pid

    def __enter__(self):
        assert self.process.stdout.readline() == "done\n"
        return self

    def __exit__(self, *_):
        self.process.communicate()


def test_another_port(host):
    with Holder(host, MCPOOL_SERVERS="31211,10.1.0.0/16:11211") as holder:
        assert why(host, holder.pid) == f"""    It has not connected over TCP to a memcached that MCPOOL_SERVERS (31211,10.1.0.0/16:11211)
    names, or not yet.
    It is connected to {host.server.address}, which that does not name.
"""


def test_another_port_over_ipv6(host):
    with Holder(host, "::ffff:127.0.0.1", MCPOOL_SERVERS="31211") as holder:
        assert re.search(rf"It is connected to .*127\.0\.0\.1\]?:{host.server.port}, which",
                         why(host, holder.pid))


def test_a_refused_list(host):
    with Holder(host, MCPOOL_SERVERS="memcached.internal:31211\x1b") as holder:
        text = why(host, holder.pid)
    assert text.startswith("    Its MCPOOL_SERVERS (memcached.internal:31211?) is not valid, so only port 11211 "
                           "is pooled.\n")
    assert f"    It is connected to {host.server.address}, which that does not name.\n" in text


ACCEPTING = """
import socket, sys
listener = socket.create_server(("127.0.0.1", 0))
client = socket.create_connection(listener.getsockname())
other, _ = listener.accept()
print(client.getsockname()[1], flush=True)
sys.stdin.read()
"""


def test_connections_that_it_accepted_are_not_named(host):
    with subprocess.Popen([PYTHON, "-c", ACCEPTING], text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=preloaded(LIBRARY, "31211", MCPOOL_STATS=str(host.stats))) as process:
        port = process.stdout.readline().strip()
        text = why(host, process.pid)
        process.communicate()
    assert text.count("It is connected to") == 1 and f":{port}," not in text


def test_counters_that_are_off(host):
    with Holder(host, MCPOOL_STATS="off") as holder:
        assert why(host, holder.pid) == "    MCPOOL_STATS is off in it.\n"


@ONLY_ROOT
def test_a_process_that_is_two_users(host):
    become = f"import os; os.setresuid(-1, {USER}, -1)\n"
    with subprocess.Popen([PYTHON, "-c", become + HOLDER, "127.0.0.1", str(host.server.port)], text=True,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          env=preloaded(LIBRARY, host.server.address, MCPOOL_STATS=str(host.stats))) as process:
        assert process.stdout.readline() == "done\n"
        text = why(host, process.pid)
        process.communicate()
    assert text.startswith("    Its real, effective and saved user differ: another user could write to its file.\n")


def test_a_library_that_is_off(host):
    with Holder(host, MCPOOL_DISABLE="on") as holder:
        assert why(host, holder.pid) == "    MCPOOL_DISABLE is on, so nothing is pooled.\n"


def test_counters_elsewhere(host, tmp_path):
    with Holder(host, MCPOOL_STATS=str(tmp_path)) as holder:
        assert why(host, holder.pid) == f"""    It shows them in {tmp_path}, and this command looks elsewhere:
    MCPOOL_STATS={tmp_path} mcpool stat {holder.pid}
"""


def test_a_process_without_the_library(host):
    client = host.client(library=None).turns(0)
    assert why(host, client.pid) == f"    It does not have the library; `mcpool check {client.pid}` says why.\n"


def test_a_process_that_has_ended(host):
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert why(host, process.pid) == "    There is no such process.\n"


def test_one_of_two(host):
    """The other is shown, and that is success."""
    shown, other = host.client().turns(1), host.client(library=None).turns(0)
    done = host.mcpool("stat", shown.pid, other.pid)
    assert done.returncode == 0 and str(shown.pid) in done.stdout
    assert done.stderr.startswith(f"mcpool: process {other.pid} shows no counters\n")


@ONLY_ROOT
def test_a_process_of_another_user(host, tools):
    client = host.client().turns(0)
    done = subprocess.run([*AS_USER, tools / "mcpool", "stat", str(client.pid)], env=host.environment(),
                          capture_output=True, text=True, timeout=60, check=False)
    assert done.stderr == (f"mcpool: process {client.pid} shows no counters\n"
                           "    It is another user's; ask as root.\n")
    done = subprocess.run([*AS_USER, tools / "mcpool", "check", str(client.pid)], env=host.environment(),
                          capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (126, "")
    assert done.stderr == f"mcpool: process {client.pid} is another user's; ask as root\n"


# A filter that a container's runtime might have put around the process.
FILTER = """
import ctypes, os, struct, sys
number = {"x86_64": 55, "aarch64": 209}[os.uname().machine]
SO_COOKIE = 57
code = [(0x20, 0, 0, 0), (0x15, 0, 3, number), (0x20, 0, 0, 32), (0x15, 0, 1, SO_COOKIE),
        (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *line) for line in code))
program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code), ctypes.addressof(text)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, program):
    sys.exit("no seccomp here")
os.environ["LD_PRELOAD"] = os.environ.pop("PRELOAD_LATER")
os.execv(sys.argv[1], sys.argv[1:])
"""


def test_a_filter_that_refuses_so_cookie(host, tmp_path):
    environment = preloaded(None, None, MCPOOL_SERVERS=host.server.address, PRELOAD_LATER=LIBRARY,
                            MCPOOL_STATS=str(host.stats), MCPOOL_LOG=str(tmp_path / "log"))
    with subprocess.Popen([PYTHON, "-c", FILTER, PYTHON, "-c", CLIENT, str(host.server.port)], env=environment,
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        for _ in range(3):
            process.stdin.write("1\n")
            process.stdin.flush()
            line = process.stdout.readline()
            if not line:
                pytest.skip("no seccomp here")
            assert line == "done\n"
        deadline = time.monotonic() + 5
        while "note: NO_PROOF 3: the kernel or a filter (seccomp) refuses SO_COOKIE" not in (
                checked := host.mcpool("check", process.pid)).stdout:
            assert time.monotonic() < deadline, checked.stdout
            time.sleep(0.1)
        process.communicate()
    assert (tmp_path / "log").read_text().count("warning: nothing is pooled: NO_PROOF (") == 1


def test_no_note_without_such_a_filter(host):
    assert "NO_PROOF" not in host.mcpool("check", host.client().turns(2).pid).stdout
