"""What other users leave in the directory of counters, in the names of files and at the port of `mcpool
metrics` does no harm. The command runs under sanitizers."""

import json
import mmap
import os
import re
import shutil
import socket
import subprocess
import time

import pytest

import observed
from observed import die_with_parent
from support import BUILD, PYTHON, preloaded
from test_stat import (HEADER, HEADER_SIZE, MAGIC, NAMESPACE, PID, START, copy_of, in_our_name, only_server,
                       own_name, start_of, with_endpoints, write_file)

SANITIZED = os.path.abspath(os.path.join(BUILD, "asan", "mcpool"))
OTHER = 65534  # a user
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")


@pytest.fixture(autouse=True)
def under_sanitizers(monkeypatch):
    """An error that a sanitizer finds ends the command with code 99."""
    assert os.path.exists(SANITIZED), "make test-programs builds it"
    monkeypatch.setattr(observed, "COMMAND", SANITIZED)
    for name in ("ASAN_OPTIONS", "UBSAN_OPTIONS"):
        monkeypatch.setenv(name, "detect_leaks=0:exitcode=99" if name[0] == "A" else "exitcode=99")


def test_one_file_has_one_name(host):
    """With leading zeros it had many, and each was read."""
    client = host.client().turns(1)
    [path] = host.stats.glob(f"{client.pid}-*")
    pid, start = path.name.split("-")
    for i in range(1, 6):
        os.link(path, host.stats / f"{'0' * i}{pid}-{start}")
        os.link(path, host.stats / f"{pid}-{'0' * i}{start}")
    done = host.mcpool("stat", "--json")
    assert done.returncode == 0
    assert [process["pid"] for process in json.loads(done.stdout)["processes"]] == [client.pid]


def test_contents_are_read_last(host):
    """Of a file that is not shown, only the header is read."""
    if not shutil.which("strace"):
        pytest.skip("no strace here")
    path = copy_of(host, host.client().turns(1), own_name(), in_our_name)
    content = path.read_bytes()[:HEADER.size]
    os.truncate(path, 1 << 30)
    trace = host.stats.parent / "trace"
    for index in (MAGIC, NAMESPACE, PID, START):
        fields = list(HEADER.unpack(content))
        fields[index] ^= 1
        with open(path, "r+b") as file:
            file.write(HEADER.pack(*fields))
        subprocess.run(["strace", "-e", "trace=pread64", "-o", trace, os.path.join(BUILD, "mcpool"), "stat"],
                       env=host.environment(), capture_output=True, timeout=60, check=False)
        sizes = [int(line.rsplit("=", 1)[1].split()[0]) for line in trace.read_text().splitlines()
                 if "pread64(" in line]
        assert 0 < max(sizes) < 100_000


def test_one_endpoint_is_shown_once(host):
    path = write_file(host, ["counter connects"], [7])
    content = path.read_bytes()
    slots_at = HEADER.unpack(content[:HEADER.size])[HEADER_SIZE]
    path.write_bytes(content + content[slots_at:] * 3)
    assert only_server(host.seen()[os.getpid()])["connects"] == 7


def test_no_more_endpoints_than_the_library_has(host):
    with_endpoints(write_file(host, ["counter connects"], [7]), 5000)
    assert len(host.seen()[os.getpid()]["servers"]) == 512


@as_root
def test_what_one_user_can_make_the_command_print(host):
    """Many processes, each with the largest file that is read. Others are shown as ever."""
    path = write_file(host, [f"counter x{i}" for i in range(500)], [1] * 500)
    with_endpoints(path, 512)
    content = path.read_bytes()
    path.unlink()
    mine = host.client().turns(1)
    asleep = [subprocess.Popen(["setpriv", "--reuid", str(OTHER), "--clear-groups", "sleep", "100"],
                               preexec_fn=die_with_parent) for _ in range(20)]
    for process in asleep:
        header = list(HEADER.unpack(content[:HEADER.size]))
        header[PID], header[START] = process.pid, start_of(process.pid)
        path = host.stats / f"{process.pid}-{header[START]}"
        path.write_bytes(HEADER.pack(*header) + content[HEADER.size:])
        os.chown(path, OTHER, OTHER)
    done, told = host.mcpool("metrics"), host.mcpool("stat").stderr
    for process in asleep:
        process.kill()
        process.wait()
    assert done.returncode == 0
    assert len(done.stdout) < 100_000_000
    assert f'pid="{mine.pid}"' in done.stdout
    assert "mcpool: 19 more of users who show too much" in told


def test_an_impossible_time(host):
    client = host.client().turns(1)
    [path] = host.stats.glob(f"{client.pid}-*")
    content = path.read_bytes()
    fields = list(HEADER.unpack(content[:HEADER.size]))
    for since in ((1 << 63) - 1, -(1 << 63), 1 << 56):
        fields[NAMESPACE + 1] = since
        path.write_bytes(HEADER.pack(*fields) + content[HEADER.size:])
        done = host.mcpool("check", client.pid)
        assert done.returncode == 0, done.stderr
        assert "first connection at an unknown time" in done.stdout


def test_paths_cannot_write_on_the_terminal(host, tmp_path):
    """Of a library, of a program and of a script."""
    evil = tmp_path / "\033[2J\x9b\r"
    evil.mkdir()
    library = shutil.copy(observed.LIBRARY, evil / "libmcpool.so")
    with open(library, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ):
        seen = [host.mcpool("check", os.getpid())]
    assert "yes: it has " in seen[0].stdout
    program = shutil.copy("/bin/sleep", evil / "sleep")
    with subprocess.Popen([program, "100"], preexec_fn=die_with_parent) as process:
        seen.append(host.mcpool("check", process.pid))
        process.kill()
    script = evil / "script"
    script.write_text(f"#!{program}\n")
    script.chmod(0o755)
    seen += [host.mcpool("check", script), host.mcpool("check", program)]
    for done in seen:
        assert done.returncode in (0, 1)
        assert str(tmp_path) in done.stdout and "[2J" in done.stdout
        assert all(letter == "\n" or letter.isprintable() for letter in done.stdout + done.stderr)


def ended():
    """A pid that no process has."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def leave(host, change=lambda header: None, owner=None, kind="file"):
    """Leaves a file of a process that has ended, in some way not ours. Returns its path."""
    pid = ended()
    path = host.stats / f"{pid}-1"
    header = list(HEADER.unpack(host.header))
    header[PID], header[START] = pid, 1
    change(header)
    if kind == "file":
        path.write_bytes(HEADER.pack(*header) + bytes(4096))
    elif kind == "empty":
        path.touch()
    elif kind == "folder":
        path.mkdir()
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "link":
        target = host.stats / "target"
        target.write_bytes(HEADER.pack(*header) + bytes(4096))
        path.symlink_to(target)
    if owner:
        os.chown(path, owner, owner)
    return path


def forge(index, value):
    def change(header):
        header[index] = value
    return change


def test_what_is_not_ours_is_not_removed(host):
    """Neither by the command nor by a process that makes its file."""
    first = host.client().turns(1)
    [path] = host.stats.glob(f"{first.pid}-*")
    host.header = path.read_bytes()[:HEADER.size]
    first.end()
    kept = [leave(host, forge(MAGIC, 1)), leave(host, forge(NAMESPACE, 1)), leave(host, kind="empty"),
            leave(host, kind="folder"), leave(host, kind="fifo"), leave(host, kind="link")]
    if os.geteuid() == 0:
        kept.append(leave(host, owner=OTHER))
    for make in (lambda: host.mcpool("stat"), lambda: host.client().turns(1).end()):
        left = leave(host)
        make()
        assert [path for path in kept if not os.path.lexists(path)] == []
        assert not left.exists(), "and what is ours is"


class HalfOpen(observed.Listener):
    """`mcpool metrics --listen` and clients that ask for nothing."""

    timeout = 5

    def __init__(self, host):
        super().__init__(host, SANITIZED)

    def ask(self):
        with self.dial() as connection:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            return connection.recv(12)


def test_half_requests_lock_no_client_out(host):
    exporter = HalfOpen(host)
    try:
        crowd = []
        for _ in range(200):
            crowd.append(exporter.dial())
            crowd[-1].sendall(b"GET /metr")
        time.sleep(0.5)
        assert exporter.ask() == b"HTTP/1.0 200"
        # The newest are still served, the oldest made room.
        crowd[-1].sendall(b"ics HTTP/1.0\r\n\r\n")
        assert crowd[-1].recv(12) == b"HTTP/1.0 200"
        try:
            assert crowd[0].recv(1) == b""
        except ConnectionResetError:
            pass
        assert exporter.process.poll() is None
    finally:
        exporter.process.kill()
        exporter.process.wait()


def test_a_client_that_sends_a_byte_now_and_then(host):
    """It is dropped after 10 seconds, as one that sends nothing."""
    exporter = HalfOpen(host)
    try:
        with exporter.dial() as slow, pytest.raises(OSError):
            for _ in range(40):
                slow.sendall(b"x")
                time.sleep(0.5)
    finally:
        exporter.process.kill()
        exporter.process.wait()


# Connects as another effective user, and as the one that it was.
DAEMON = """
import os, socket, sys
def turn():
    s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
    s.sendall(b"get a\\r\\n")
    assert s.recv(5) == b"END\\r\\n"
    s.close()
become = eval(sys.argv[2])
become(int(sys.argv[3]))
turn()
print("connected", flush=True)
sys.stdin.readline()
become(0)
turn()
print("connected", flush=True)
sys.stdin.readline()
"""


@as_root
@pytest.mark.parametrize("become", [
    "os.seteuid", "lambda uid: os.setresuid(-1, uid, 0)", "lambda uid: os.setreuid(-1, uid)",
    "__import__('ctypes').CDLL(None).setfsuid"])
def test_no_file_of_another_effective_user(host, become):
    host.stats.chmod(0o1777)
    for folder in host.stats.parents:
        if not os.stat(folder).st_mode & 0o001:
            folder.chmod(0o711)
    with subprocess.Popen([PYTHON, "-c", DAEMON, str(host.server.port), become, str(OTHER)],
                          env=preloaded(observed.LIBRARY, host.server.address, MCPOOL_STATS=str(host.stats)),
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                          preexec_fn=die_with_parent) as process:
        for _ in range(2):
            assert process.stdout.readline() == "connected\n"
            assert [path for path in host.stats.iterdir() if path.stat().st_uid != 0] == []
            process.stdin.write("\n")
            process.stdin.flush()
        assert process.wait(20) == 0


def with_own_run(script, *arguments, environment=None, text=None):
    """Runs SCRIPT by a shell that has a /run of its own."""
    done = subprocess.run(["unshare", "-m", "sh", "-ec", "mount -t tmpfs none /run || exit 77\n" + script, "sh",
                           *map(str, arguments)], env=environment, input=text, capture_output=True, text=True,
                          timeout=60, check=False)
    if done.returncode == 77 or done.stderr.startswith("unshare"):
        pytest.skip("no mount namespaces here: " + done.stderr)
    return done


@as_root
def test_a_link_in_another_users_runtime_directory(host, tmp_path):
    """Root with the environment of that user, as after `su` or `sudo -E`."""
    def files_in(folder):
        environment = preloaded(observed.LIBRARY, host.server.address, XDG_RUNTIME_DIR=str(runtime))
        code = observed.CLIENT.replace('print("done"', 'print(*__import__("os").listdir(sys.argv[3]), "done"')
        done = with_own_run('exec "$@"', PYTHON, "-c", code, host.server.port, 60, folder, environment=environment,
                            text="1\n")
        assert done.returncode == 0, done.stderr
        return len(done.stdout.split()) - 1

    runtime, target = tmp_path / "runtime", tmp_path / "target"
    target.mkdir()
    runtime.mkdir(mode=0o700)
    assert files_in(runtime / "mcpool") == 1, "its own is used"
    (runtime / "mcpool").rmdir()
    (runtime / "mcpool").symlink_to(target)
    os.chown(runtime, OTHER, OTHER)
    assert files_in(target) == 0


def postrm(kind):
    """The script that runs when the package was removed."""
    if kind == "deb":
        return 'set -- remove\n' + read("packaging", "debian", "mcpool.postrm")
    return "set -- 0\n" + re.search(r"^%postun -n mcpool\n(.*?)\n\n%", read("packaging", "rpm", "libmcpool.spec"),
                                    re.M | re.S)[1]


def read(*path):
    with open(os.path.join(observed.SHIM, "..", *path), encoding="utf-8") as file:
        return file.read()


@as_root
@pytest.mark.parametrize("kind", ["deb", "rpm"])
def test_removal_where_the_directory_is_a_mount(kind):
    leave = "mkdir -p /run/mcpool/3-4; touch /run/mcpool/1-2\n"
    done = with_own_run(f"mkdir /run/mcpool; mount -t tmpfs none /run/mcpool\n{leave}"
                        f"({postrm(kind)})\nls -A /run/mcpool; mountpoint -q /run/mcpool")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    done = with_own_run(f"{leave}({postrm(kind)})\ntest ! -e /run/mcpool")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def mount_options():
    """As the unit and the manual have them."""
    unit = read("packaging", "examples", "systemd", "run-mcpool.mount")
    [options] = re.findall(r"^Options=(.*)$", unit, re.M)
    assert f"\ntmpfs /run/mcpool tmpfs {options} 0 0\n" in read("shim", "man", "libmcpool.7")
    return options


def test_unit_of_the_mount():
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze here")
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", os.path.join(
        observed.SHIM, "..", "packaging", "examples", "systemd", "run-mcpool.mount")], capture_output=True, text=True,
        timeout=60, check=False)
    assert "run-mcpool" not in done.stdout + done.stderr


def assert_nothing_was_shown(host, done):
    """Of the server of HOST; other processes of this machine may be."""
    told = done.stdout.split("done\n")
    assert done.returncode in (0, 1) and len(told) == 2, done.stdout + done.stderr
    assert "mcpool: no process shows counters\n" in told[1] or ": 1 process, " in told[1] or " processes, " in told[1]
    assert host.server.address not in told[1]


@as_root
@pytest.mark.parametrize("fill", ["cat /dev/zero | head -c 100000000 >/run/mcpool/1-1",
                                  "seq -f /run/mcpool/1-%.0f 20000 | xargs touch"])
def test_one_user_cannot_fill_run(host, fill):
    """Neither with bytes nor with names; and who finds it full works as ever."""
    script = f"""mkdir /run/mcpool; echo 'tmpfs /run/mcpool tmpfs {mount_options()} 0 0' >/run/fstab
        mount --fstab /run/fstab /run/mcpool
        setpriv --reuid {OTHER} --clear-groups sh -c '{fill}' 2>/dev/null || echo full
        du --apparent-size -s -BM /run/mcpool | cut -f1; ls /run/mcpool | wc -l
        "$@"
        exec {SANITIZED} stat 2>&1"""
    done = with_own_run(script, PYTHON, "-c", observed.CLIENT, host.server.port, text="3\n",
                        environment=preloaded(None, None))
    assert_nothing_was_shown(host, done)
    full, size, names = done.stdout.split("\n")[:3]
    assert full == "full" and int(size.strip("M")) <= 17 and int(names) <= 8192
    done = with_own_run(script.replace('"$@"', 'LD_PRELOAD=$LIBRARY "$@"'), PYTHON, "-c", observed.CLIENT,
                        host.server.port, text="3\n",
                        environment=preloaded(None, None, LIBRARY=observed.LIBRARY,
                                              MCPOOL_SERVERS=host.server.address))
    assert_nothing_was_shown(host, done)
