"""A clean Debian machine to try the packages on: systemd and all, in a container without network.

The root is made once by mmdebstrap, from this machine's own sources, and kept in the build
directory; each machine is booted from it by systemd-nspawn with a temporary overlay, so that what
happens there is gone with it. It dies with the test that started it.
"""

import contextlib
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.parse

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
from support import BUILD, Load, PYTHON, die_with_parent

# What a machine with an application has; nothing of it is ours.
SOFTWARE = ["systemd-sysv", "iproute2", "memcached", "gunicorn", "python3-gevent",
            "python3-memcache", "php-fpm", "php-memcached", "libfcgi-bin", "uwsgi",
            "uwsgi-plugin-python3", "uwsgi-plugin-gevent-python3", "supervisor", "apache2",
            "libapache2-mod-php", "libapache2-mod-wsgi-py3", "celery", "puma", "ruby-dalli", "nodejs"]
TOOLS = ["apt-get", "mmdebstrap", "systemd-nspawn", "nsenter"]
CGROUP_MOUNTS = ["/sys/fs/cgroup", "/sys/fs/cgroup/systemd", "/sys/fs/cgroup/unified"]


def output_of(*command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more).stdout


def sources():
    """This machine's own sources of Debian packages, as lines of sources.list."""
    return output_of("apt-get", "indextargets", "--format",
                     "deb $(REPO_URI) $(RELEASE) $(COMPONENT)",
                     "Created-By: Packages", "Origin: Debian")


def apt_settings():
    """How this machine reaches its sources: proxies and the like. Recommended packages are not installed,
    neither by mmdebstrap nor later."""
    return ['APT::Install-Recommends "false";',
            *(line for line in output_of("apt-config", "dump").splitlines()
              if line.startswith("Acquire::") and "IndexTargets" not in line)]


def is_reachable(uri):
    parts = urllib.parse.urlsplit(uri)
    try:
        port = parts.port or {"http": 80, "https": 443}[parts.scheme]
        socket.create_connection((parts.hostname, port), 10).close()
        return True
    except (OSError, KeyError):
        return False


def why_not():
    """The reason why there can be no such machine here; None when there can."""
    if os.geteuid() != 0:
        return "only root can make a machine"
    for tool in TOOLS:
        if not shutil.which(tool):
            return f"no {tool} here"
    # As in a container, or where the root is no mount of its own.
    if subprocess.run(["unshare", "--mount", "true"], capture_output=True,
                      check=False).returncode != 0:
        return "no mount namespace may be made here"
    lines = sources().splitlines()
    if not lines:
        return "no source of Debian packages here"
    if "Proxy" not in " ".join(apt_settings()) and not is_reachable(lines[0].split()[1]):
        return f"{lines[0].split()[1]} is out of reach"
    return None


def suite():
    return output_of("sh", "-c", ". /etc/os-release && echo $VERSION_CODENAME").strip()


def root():
    """The machine's root directory. It is made when there is none, or one with other software."""
    path = os.path.join(BUILD, "machine", suite())
    contents = os.path.join(path, "etc", "mcpool-test-machine")
    wanted = "\n".join([*SOFTWARE, *apt_settings()])
    if os.path.exists(contents):
        with open(contents, encoding="ascii") as file:
            if file.read() == wanted:
                return path
    subprocess.run(["rm", "-rf", "--one-file-system", path], check=True)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    made = subprocess.run(
        ["mmdebstrap", "--quiet", "--variant=minbase", "--skip=cleanup/apt/lists",
         *(f"--aptopt={line}" for line in apt_settings()), f"--include={','.join(SOFTWARE)}",
         suite(), path, "-"],
        input=sources(), text=True, stderr=subprocess.PIPE, check=False)
    if made.returncode != 0:
        raise RuntimeError(f"mmdebstrap failed: {made.stderr[-2000:]}")
    with open(contents, "w", encoding="ascii") as file:
        file.write(wanted)
    return path


numbers = itertools.count()


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
        return [int(child) for child in file.read().split()]


class Machine:
    """A booted machine. Its memcached is at port 11211, the usual one."""

    def __init__(self):
        self.name = f"mcpool-test-{os.getpid()}-{next(numbers)}"
        self.nspawn = subprocess.Popen(
            # In a pid namespace of its own, with which everything in it ends.
            ["unshare", "--pid", "--mount-proc", "--fork", "--kill-child",
             "systemd-nspawn", "--quiet", "--directory", root(), "--volatile=overlay", "--boot",
             "--private-network", "--register=no", "--keep-unit", "--console=pipe",
             "--link-journal=no", "--resolv-conf=off", "--timezone=off", "--machine", self.name],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            text=True, preexec_fn=self.enter_cgroup, start_new_session=True)
        try:
            self.init = self.until("start", self.find_init)
            self.until("boot", self.has_booted)
            self.until("have a memcached", self.memcached_listens)
            self.run("mkdir -p /srv/myapp")
        except BaseException:
            self.stop()
            raise

    def enter_cgroup(self):
        """In the child before nspawn starts: groups of its own, so that they can be found again."""
        die_with_parent()
        for group in self.cgroups():
            os.mkdir(group)
            with open(os.path.join(group, "cgroup.procs"), "w", encoding="ascii") as file:
                file.write("0")

    def cgroups(self):
        return [os.path.join(mount, self.name) for mount in CGROUP_MOUNTS
                if os.path.exists(os.path.join(mount, "cgroup.procs"))]

    def until(self, what, condition):
        """Waits until CONDITION is true and returns its value."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.nspawn.poll() is not None:
                raise RuntimeError(f"systemd-nspawn: {self.nspawn.stderr.read()}")
            if answer := condition():
                return answer
            time.sleep(0.1)
        raise RuntimeError(f"the machine does not {what}")

    def find_init(self):
        """The process that is pid 1 there."""
        for child in [grandchild for child in children_of(self.nspawn.pid)
                      for grandchild in children_of(child)]:
            if os.path.exists(f"/proc/{child}/root/run/systemd/private"):
                return str(child)
        return None

    def has_booted(self):
        return self.run("systemctl is-system-running || true").strip() in ("running", "degraded")

    def memcached_listens(self):
        """systemd counts it as running as soon as it has begun."""
        return self.run("ss -Hltn 'sport = :11211'").strip()

    def command(self, command, network=False):
        """The command line that runs the shell's COMMAND as root there, in the directory of the application.
        NETWORK: in this machine's network."""
        spaces = ["--mount", "--uts", "--ipc", "--pid", "--cgroup", "--root", "--wd"]
        environment = ["HOME=/root", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin",
                       "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive"]
        return ["nsenter", "--target", self.init, *spaces, *([] if network else ["--net"]),
                "env", "-i", *environment, "sh", "-c",
                f"if [ -d /srv/myapp ]; then cd /srv/myapp; fi; {command}"]

    def run(self, command, network=False, timeout=300):
        """Runs the command to its end, which must be a good one; returns its output."""
        done = subprocess.run(self.command(command, network), stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                              errors="replace", timeout=timeout, check=False)
        assert done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout[-3000:]}"
        return done.stdout

    @contextlib.contextmanager
    def running(self, command):
        """Runs a server in the foreground there, silently, until it is no longer needed."""
        nsenter = subprocess.Popen(self.command(f"exec env {command}"), stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                                   preexec_fn=die_with_parent, start_new_session=True)
        try:
            yield
            assert nsenter.poll() is None, f"{command}: has ended"
        finally:
            for server in children_of(nsenter.pid):
                os.kill(server, signal.SIGINT)
            try:
                nsenter.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(nsenter.pid, signal.SIGKILL)
                nsenter.wait()

    def connections(self):
        """Connections that memcached has accepted there so far, the one that asks among them."""
        return int(self.visitors("connections"))

    def visit(self, requests, concurrency, first_key):
        """REQUESTS visits of the application at port 8000: a Load."""
        return Load(*json.loads(self.visitors("load", requests, concurrency, first_key)))

    def visitors(self, *arguments):
        return output_of("nsenter", "--target", self.init, "--net", PYTHON,
                         os.path.join(HERE, "visitors.py"), *map(str, arguments), timeout=120)

    def copy(self, source, target):
        """Copies a file of this machine to a directory there."""
        with open(source, "rb") as file:
            place = shlex.quote(os.path.join(target, os.path.basename(source)))
            subprocess.run(self.command(f"cat >{place}"), stdin=file, check=True, timeout=60)

    def stop(self):
        """Stops the machine at once, as a power failure would."""
        self.nspawn.kill()
        self.nspawn.wait()
        self.nspawn.stderr.close()
        deadline = time.monotonic() + 30
        for group in self.cgroups():
            while os.path.exists(group) and time.monotonic() < deadline:
                subprocess.run(["find", group, "-depth", "-type", "d", "-exec", "rmdir", "{}", ";"],
                               stderr=subprocess.DEVNULL, check=False)
                time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
