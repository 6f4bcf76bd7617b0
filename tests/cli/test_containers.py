"""What `mcpool stat` shows of processes in other namespaces, and that what a container has at the names of our
files leads nowhere. The command runs under sanitizers."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import pytest

import observed
from observed import CLIENT, die_with_parent
from support import LIBRARY, PYTHON, preloaded
from test_foreign import under_sanitizers  # noqa: F401
from test_stat import HEADER, NAMESPACE, PID

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make namespaces and see them")
USER = 1000
NAME = "web-7d9f"
# Becomes a program as root of a user namespace, whose users from 0 on are those from FIRST on outside.
FIRST = 100000
ENTER = f"""
import ctypes, os, sys
unshared, mapped, new_user = os.pipe(), os.pipe(), 0x10000000
pid = os.getpid()
if os.fork() == 0:
    os.close(unshared[1])
    if not os.read(unshared[0], 1):
        os._exit(1)    # it may not have such a namespace, and has ended
    for name in ("uid_map", "gid_map"):
        with open(f"/proc/{{pid}}/{{name}}", "w") as file:
            file.write("0 {FIRST} 65536")
    os._exit(os.write(mapped[1], b"x") - 1)
assert ctypes.CDLL(None).unshare(new_user) == 0
os.write(unshared[1], b"x")
os.read(mapped[0], 1)
os.wait()
os.setgid(0)
os.setuid(0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


def environment():
    return {name: value for name, value in os.environ.items() if name not in ("MCPOOL_STATS", "XDG_RUNTIME_DIR")}


def shown():
    done = subprocess.run([observed.COMMAND, "stat", "--json"], env=environment(), capture_output=True, text=True,
                          timeout=60, check=False)
    assert done.returncode in (0, 1), done.stderr
    return {process["pid"]: process for process in json.loads(done.stdout)["processes"]}


class Container:
    """A process of uid 1000 in mount, PID and UTS namespaces of its own. Its root and its /run can only be read.
    PREPARE runs before it; $1 is a folder that the test has too."""

    def __init__(self, server, folder, prepare="", flags=("--pid", "--fork", "--uts"), name=NAME, before=(),
                 **more):
        (folder / "hostname").write_text(name + "\n")
        environment_ = preloaded(LIBRARY, server.address, **more)
        for variable in ("MCPOOL_STATS", "XDG_RUNTIME_DIR"):
            if variable not in more:
                environment_.pop(variable, None)
        del environment_["LD_PRELOAD"]
        script = f"""mount --make-rprivate /
            mount -t tmpfs none /run
            cp {LIBRARY} /run
            mount --bind "$1/hostname" /etc/hostname
            mkdir -m 777 /run/mcpool
            mount -t tmpfs -o mode=777 none /run/mcpool
            {prepare}
            mount -o remount,ro none /run
            mount -o remount,bind,ro none /
            shift
            exec "$@" """
        self.process = subprocess.Popen(
            [*before, "unshare", "--mount", *flags, "sh", "-ec", script, "sh", folder, "setpriv", "--reuid", str(USER),
             "--regid", str(USER), "--clear-groups", "env", f"LD_PRELOAD=/run/{os.path.basename(LIBRARY)}",
             PYTHON, "-c", CLIENT,
             str(server.port)],
            env=environment_, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=die_with_parent)
        self.pid = self.process.pid

    def __enter__(self):
        self.process.stdin.write("3\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if line != "done\n":
            self.__exit__()
            pytest.skip("no namespaces here")
        with open(f"/proc/{self.pid}/task/{self.pid}/children", encoding="ascii") as file:
            children = file.read().split()
        self.pid = int(children[0]) if children else self.pid
        return self

    def __exit__(self, *_):
        if self.pid != self.process.pid:
            os.kill(self.pid, signal.SIGKILL)
        self.process.kill()
        self.process.communicate()

    def inside(self, script, *arguments):
        """Runs SCRIPT as root in its mount namespace."""
        subprocess.run(["nsenter", "-t", str(self.pid), "-m", "sh", "-ec", script, "sh", *arguments], check=True,
                       timeout=60)

    def path(self, *path):
        return os.path.join(f"/proc/{self.pid}/root/run/mcpool", *path)

    def is_shown(self, seconds=5):
        deadline = time.monotonic() + seconds
        while True:
            process = shown().get(self.pid)
            if process and process["servers"][0]["connects"] == 3:
                return process
            if time.monotonic() > deadline:
                return None
            time.sleep(0.1)


def test_a_container_is_shown_and_named(server, tmp_path):
    with Container(server, tmp_path) as container:
        process = container.is_shown()
        assert process["inner_pid"] == 1 and process["container"].split("/")[0] == NAME
        table = subprocess.run([observed.COMMAND, "stat", str(container.pid)], env=environment(), text=True,
                               capture_output=True, timeout=60, check=False)
        assert table.stdout.startswith(f"python3 in {NAME}")
        checked = subprocess.run([observed.COMMAND, "check", str(container.pid)], env=environment(), text=True,
                                 capture_output=True, timeout=60, check=False)
        assert f"note: it is process 1 of the container {NAME}" in checked.stdout
        metrics = subprocess.run([observed.COMMAND, "metrics"], env=environment(), text=True, capture_output=True,
                                 timeout=60, check=False)
        assert f'container="{NAME}' in metrics.stdout


@pytest.mark.parametrize("flags", [(), ("--pid", "--fork"), ("--uts",)])
def test_each_kind_of_namespace(server, tmp_path, flags):
    with Container(server, tmp_path, flags=flags) as container:
        assert container.is_shown()


def test_a_directory_of_its_own(server, tmp_path):
    with Container(server, tmp_path, "mkdir /run/other; mount -t tmpfs -o mode=777 none /run/other",
                   MCPOOL_STATS="/run/other") as container:
        assert container.is_shown()


@pytest.mark.parametrize("before, first", [((), 0), ((PYTHON, "-c", ENTER), FIRST)], ids=["", "without root"])
def test_the_fallback(server, tmp_path, before, first):
    """Its name has the user ID as the process calls it."""
    for folder in (tmp_path, *tmp_path.parents):
        if not os.stat(folder).st_mode & 0o001:
            folder.chmod(0o711)
    with Container(server, tmp_path, "umount /run/mcpool; rmdir /run/mcpool"
                                     "; mount -t tmpfs -o mode=1777 none /tmp",
                   before=before) as container:
        assert container.is_shown()
        assert os.listdir(f"/proc/{container.pid}/root/tmp") == [f"mcpool-{USER}"]
        assert os.stat(f"/proc/{container.pid}").st_uid == USER + first


def test_where_it_can_write_nowhere(server, tmp_path):
    """The command says which directories it tried, as which user, and what to do."""
    with Container(server, tmp_path, "umount /run/mcpool; rmdir /run/mcpool; mount -t tmpfs -o ro none /tmp"
                   ) as container:
        done = subprocess.run([observed.COMMAND, "stat", str(container.pid)], env=environment(), text=True,
                              capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"""mcpool: process {container.pid} shows no counters
    Its user, uid {USER}, can make no file of counters:
        /run/mcpool: no such directory
        /tmp/mcpool-{USER}: read-only file system
    Set MCPOOL_STATS to a directory that it can write to, for it and for mcpool.
"""


def test_a_directory_that_two_namespaces_share(host):
    """Each has a file of the same user, with a pid that is another process or none in the other one. Neither a
    command nor a process that makes its file removes what is of the other."""
    apart = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    beside = [host.client(), host.client()]
    beside[0].turns(1)
    inside = subprocess.Popen([*apart, PYTHON, "-c", CLIENT, str(host.server.port)], text=True,
                              env=preloaded(LIBRARY, host.server.address, MCPOOL_STATS=str(host.stats)),
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=die_with_parent)
    try:
        inside.stdin.write("1\n")
        inside.stdin.flush()
        assert inside.stdout.readline() == "done\n"
        before = sorted(os.listdir(host.stats))
        assert len(before) == 2 and any(name.startswith("1-") for name in before)
        for command in ([], apart):
            done = subprocess.run([*command, observed.COMMAND, "stat"], env=host.environment(), capture_output=True,
                                  timeout=60, check=False)
            assert done.returncode in (0, 1), done.stderr
            assert sorted(os.listdir(host.stats)) == before
        beside[1].turns(1)
        beside[1].end()
        assert sorted(os.listdir(host.stats)) == before
    finally:
        inside.communicate()
    assert len(os.listdir(host.stats)) == 1


def test_the_name_cannot_write_on_the_terminal(server, tmp_path):
    with Container(server, tmp_path, name='\033[2J"\\') as container:
        assert container.is_shown()["container"].startswith("?[2J??")


def test_its_root_can_only_be_read(server, tmp_path):
    with Container(server, tmp_path) as container:
        for folder in ("/", "/run", "/etc", "/usr"):
            assert os.statvfs(f"/proc/{container.pid}/root{folder}").f_flag & os.ST_RDONLY, folder
        assert not os.statvfs(container.path()).f_flag & os.ST_RDONLY
        assert os.stat(f"/proc/{container.pid}").st_uid == USER


# Each takes the place of a right file or of a directory on the way to it.
DECOYS = {
    "the file": 'mv "$F" /run/mcpool/real; ln -s real "$F"',
    "the file, to the host": 'cp "$F" "$1/decoy"; rm "$F"; ln -s "$1/decoy" "$F"',
    "the directory": "mkdir /run/away; cp -p $F /run/away; umount /run/mcpool; rmdir /run/mcpool"
                     "; ln -s away /run/mcpool",
    "the directory, to the host": 'cp -p $F "$1"; umount /run/mcpool; rmdir /run/mcpool; ln -s "$1" /run/mcpool',
    "a FIFO": 'rm "$F"; mkfifo "$F"',
    "a device": 'rm "$F"; mknod "$F" c 1 5',
    "a file of procfs": 'rm "$F"; touch "$F"; mount --bind /proc/version "$F"',
    "another user's": 'chown 65534 "$F"',
    "nothing": 'rm "$F"',
}


@pytest.mark.parametrize("decoy", DECOYS)
def test_no_link_is_followed_and_no_device_opened(server, tmp_path, decoy):
    with Container(server, tmp_path) as container:
        assert container.is_shown()
        os.kill(container.pid, signal.SIGSTOP)
        container.inside(f"""mount -o remount,bind,rw /
            mount -o remount,rw /run
            F=$(echo /run/mcpool/1-*)
            {DECOYS[decoy]}""", tmp_path)
        assert container.pid not in shown()
        done = subprocess.run([observed.COMMAND, "check", str(container.pid)], env=environment(), text=True,
                              capture_output=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        os.kill(container.pid, signal.SIGCONT)


def test_nothing_is_removed_there(server, tmp_path):
    """Not even what looks as if this command might remove it at home."""
    with Container(server, tmp_path) as container:
        assert container.is_shown()
        [name] = [name for name in os.listdir(container.path()) if name.startswith("1-")]
        with open(container.path(name), "rb") as file:
            content = file.read()
        header = list(HEADER.unpack(content[:HEADER.size]))
        with subprocess.Popen(["true"]) as process:
            process.wait()
        for i, namespace in enumerate((header[NAMESPACE], os.stat("/proc/self/ns/pid").st_ino)):
            header[NAMESPACE], header[PID] = namespace, process.pid + i
            with open(container.path(f"{process.pid + i}-1"), "wb") as file:
                file.write(HEADER.pack(*header) + content[HEADER.size:])
        before = sorted(os.listdir(container.path()))
        assert container.is_shown() and sorted(os.listdir(container.path())) == before and len(before) == 3


def traced(folder, *arguments, filter_="%file", **more):
    """The system calls of the command, which runs without sanitizers: a list of lines. They name the file of each
    fd, as strace does."""
    if not shutil.which("strace"):
        pytest.skip("no strace here")
    trace = folder / "trace"
    subprocess.run(["strace", "-y", "-s", "300", "-e", f"trace={filter_}", "-o", trace,
                    os.path.join(observed.BUILD, "mcpool"), *map(str, arguments)], env=dict(environment(), **more),
                   capture_output=True, timeout=60, check=True)
    return [line for line in trace.read_text().splitlines() if line[0] not in "+-"]


# What the command may do with files: to look, and to open for reading.
LOOKS = {"execve", "access", "openat", "stat", "lstat", "newfstatat", "readlink", "readlinkat", "statfs", "fstatfs"}
FOR_READING = re.compile(r"O_RDONLY|O_PATH")
FOR_MORE = re.compile(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE)")


@pytest.mark.parametrize("arguments", [["stat"], ["stat", "--json"], ["stat", "PID"], ["check", "PID"], ["metrics"],
                                       ["doctor"]])
def test_each_step_below_a_root_follows_no_link(server, tmp_path, arguments):
    """The command opens the root of a process, and from there one name after the other, each with O_NOFOLLOW. It
    opens nothing for writing, and makes and removes nothing."""
    with Container(server, tmp_path) as container:
        assert container.is_shown()
        lines = traced(tmp_path, *[container.pid if word == "PID" else word for word in arguments])
    assert {line.split("(")[0] for line in lines} <= LOOKS
    steps = []
    for line in lines:
        opened = re.match(r'openat\((AT_FDCWD|\d+)(?:<.*?>)?, "(.*?)", (\S+)', line)
        if not opened:
            assert not re.search(r'"/proc/\w+/root/', line), line
            continue
        at, name, flags = opened.groups()
        assert FOR_READING.search(flags) and not FOR_MORE.search(flags), line
        if at != "AT_FDCWD":
            assert "/" not in name and name != ".." and "O_NOFOLLOW" in flags, line
            steps.append(name)
        elif re.match(r"/proc/\w+/root", name):
            assert re.fullmatch(r"/proc/\d+/root", name) and "O_PATH" in flags, line
    assert re.search(r"\n\.\nrun\nmcpool\n1-\d+\n", "\n" + "\n".join(steps) + "\n")


def test_the_program_of_a_container_is_looked_at_there(server, tmp_path):
    """Not the file that has its path on this side."""
    subprocess.run(["gcc", "-static", "-o", tmp_path / "static", "-x", "c", "-"], text=True, check=True,
                   input="#include <unistd.h>\nint main(void) { return pause(); }\n")
    with subprocess.Popen(["unshare", "--mount", "sh", "-ec", 'mount --bind "$0" /bin/sleep; exec sleep 100',
                           tmp_path / "static"], preexec_fn=die_with_parent) as process:
        deadline = time.monotonic() + 5
        while os.path.basename(os.readlink(f"/proc/{process.pid}/exe")) != "sleep":
            assert time.monotonic() < deadline
            time.sleep(0.05)
        done = subprocess.run([observed.COMMAND, "check", str(process.pid)], env=environment(), text=True,
                              capture_output=True, timeout=60, check=False)
        process.kill()
    assert (done.returncode, done.stderr) == (1, "")
    assert "no: it is linked statically" in done.stdout


def test_where_proc_is_that_of_another_namespace(server, host):
    """The command and a process are in a PID namespace whose /proc is that of the host. What has its file is alive,
    although /proc has no such pid, or another process with it."""
    script = """mkfifo "$6"; exec 3<>"$6"; echo 3 >&3
        env LD_PRELOAD="$1" python3 -c "$2" "$3" <&3 >/dev/null & client=$!
        until ls "$5" | grep -q .; do sleep 0.1; done
        "$4" stat --json; ls "$5"; kill $client"""
    done = subprocess.run(["unshare", "--pid", "--fork", "--kill-child", "sh", "-ec", script, "sh", LIBRARY, CLIENT,
                           str(server.port), observed.COMMAND, host.stats, host.stats.parent / "fifo"], text=True,
                          capture_output=True, timeout=60, check=True,
                          env=preloaded(None, None, MCPOOL_STATS=str(host.stats), MCPOOL_SERVERS=server.address))
    seen, names = done.stdout.rsplit("}\n", 1)
    assert re.fullmatch(r"\d+-\d+\n", names)
    [process] = json.loads(seen + "}")["processes"]
    assert process["inner_pid"] == int(names.split("-")[0]) != process["pid"]


def test_calls_for_each_process(server, host, tmp_path):
    """They are most of what the command costs on a host with many processes."""
    clients = [host.client().turns(1).pid for _ in range(12)]
    few, many = [len(traced(tmp_path, "stat", *clients[:n], filter_="all", MCPOOL_STATS=str(host.stats)))
                 for n in (2, 12)]
    assert (many - few) / 10 <= 30
    apart = [Container(server, tmp_path) for _ in range(6)]
    try:
        clients = [container.__enter__().pid for container in apart]
        assert all(container.is_shown() for container in apart)
        few, many = [len(traced(tmp_path, "stat", *clients[:n], filter_="all")) for n in (2, 6)]
        assert (many - few) / 4 <= 80
    finally:
        for container in apart:
            container.__exit__()
