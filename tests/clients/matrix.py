"""The client matrix: real programs that make a connection per operation, without and with the shim.

Usage: matrix.py [ROW...]     runs rows, all by default, and says of each what came of it
       matrix.py --table      the same as a Markdown table, the first of README.md
       matrix.py --why ROW... runs rows with the shim and counts why connections were not kept

A row is a program below matrix/ or apps/ and how it is run. A loop makes its operations itself and
ends with the line "ANSWERED WRONG FDS", the last the growth of its open descriptors; a server is
asked by HTTP. Values name their keys, so that an answer to another question is noticed.
Every program is told APP_SERVER, and a loop also APP_OPERATIONS and APP_CONCURRENCY.
"""

import collections
import contextlib
import dataclasses
import functools
import glob
import importlib.metadata
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import textwrap
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from support import (BUILD, LIBRARY, PYTHON, Memcached, Process, die_with_parent, free_port, load,
                     preloaded)

HERE = os.path.dirname(os.path.abspath(__file__))
APPS = os.path.join(HERE, "apps")
PROGRAMS = os.path.join(HERE, "matrix")
NODE = os.path.abspath(os.path.join(BUILD, "node"))
OPERATIONS = 80
CONCURRENCY = 8
SECONDS = 60

# `ended` is the exit code of a program that has ended: badly, or before its time.
# `left` is how many connections the server still had when the program had ended.
Outcome = collections.namedtuple("Outcome",
                                 "opened wrong failed descriptors seconds ended errors left",
                                 defaults=[0])


class Missing(Exception):
    """The reason why a row cannot run here."""


class Volatile(Memcached):
    """A memcached that is killed, because it takes a second to stop when asked to."""

    def still_open(self, before, patience=5):
        """How many connections are open that were not in BEFORE, an earlier answer of stats(). memcached
        closes what was hung up only when its threads get to it."""
        deadline = time.monotonic() + patience
        while True:
            count = (int(self.stats()["curr_connections"]) - int(before["curr_connections"]))
            if count <= 0 or time.monotonic() > deadline:
                return max(0, count)
            time.sleep(0.05)

    def stop(self):
        self.process.kill()
        super().stop()


class OverIpv6(Volatile):
    """A memcached that also listens on ::1, the address that its clients are given."""

    def __init__(self):
        super().__init__("-l", "[::1]")

    @property
    def address(self):
        return f"[::1]:{self.port}"


class OverUnixSocket(Volatile):
    """A memcached that listens on nothing else."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory()
        os.chmod(self.directory.name, 0o777)
        super().__init__("-s", self.address, "-a", "0777")

    @property
    def address(self):
        return os.path.join(self.directory.name, "socket")

    def wait_until_it_listens(self):
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.stats()
                return
            time.sleep(0.05)
        raise RuntimeError("memcached does not listen")

    def connect(self):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self.address)
        return connection

    def stats(self):
        with self.connect() as connection:
            connection.sendall(b"stats\r\n")
            lines = connection.makefile("r")
            words = iter(lambda: lines.readline().split(None, 2), ["END"])
            return {word[1]: word[2] for word in words}

    def stop(self):
        super().stop()
        self.directory.cleanup()


class Twemproxy(Process):
    """A proxy with a memcached of its own behind it; what is counted is the proxy's connections."""

    def __init__(self):
        self.behind = Volatile()
        self.statistics = free_port()
        self.directory = tempfile.TemporaryDirectory()
        configuration = os.path.join(self.directory.name, "nutcracker.yml")
        port = free_port()
        with open(configuration, "w") as file:
            file.write(f"pool:\n  listen: 127.0.0.1:{port}\n  hash: fnv1a_64\n"
                       f"  servers:\n    - {self.behind.address}:1\n")
        log = os.path.join(self.directory.name, "log")  # only root may write the usual one
        super().__init__(["/usr/sbin/nutcracker", "-c", configuration, "-a", "127.0.0.1", "-o", log,
                          "-s", str(self.statistics)], port)

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    def stats(self):
        with socket.create_connection(("127.0.0.1", self.statistics), 5) as connection:
            return json.load(connection.makefile())

    def connections_since(self, before):
        return self.stats()["total_connections"] - before["total_connections"]

    def still_open(self, before):
        """The proxy's own connections to the memcached behind it do not count."""
        return 0

    def stop(self):
        super().stop()
        self.behind.stop()
        self.directory.cleanup()


@dataclasses.dataclass
class Row:
    """A program and how it is run: `command` is a list, or a function of Running that makes it."""
    client: str
    how: str
    command: object
    needs: tuple = ()
    concurrency: int = CONCURRENCY
    environment: dict = dataclasses.field(default_factory=dict)
    memcached: object = Volatile
    serves: bool = False
    # The load only reads: the values are stored first.
    reads: bool = False
    # A web server that puts HTTP in front of a program that speaks another protocol.
    front: object = None
    expect: str = "pooled"
    note: str = ""
    # How many connections are busy at a time, at most, for each operation. A client may be closed long after
    # its answer was read, and the next one does not wait for that.
    alive: float = 3

    @property
    def most(self):
        return int(self.alive * self.concurrency)

    @property
    def most_descriptors(self):
        return self.concurrency + self.most


@dataclasses.dataclass
class Running:
    """What a command gets: where to listen, which server to ask, and a folder for its files."""
    directory: str
    port: int
    server: str
    behind: int = 0

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(textwrap.dedent(text))
        return path


def loop(client, way="order"):
    return [PYTHON, os.path.join(PROGRAMS, "loop.py"), client, way]


def program(name, *arguments):
    return [PYTHON, os.path.join(PROGRAMS, name), *arguments]


def listening(name):
    return lambda running: program(name, str(running.port))


def gunicorn(app, *options):
    return lambda running: [PYTHON, "-m", "gunicorn", "-b", f"127.0.0.1:{running.port}",
                            *options, f"{app}:app"]


def uwsgi(app, plugins, *options):
    return lambda running: ["uwsgi", "--plugins", plugins, "--http-socket",
                            f"127.0.0.1:{running.port}", "--master", "--die-on-term",
                            "--module", app, *options]


def perl(kind):
    return ["perl", os.path.join(PROGRAMS, "loop.pl"), kind]


def node(client):
    def command(_):
        if why_no_node_modules():
            raise Missing(why_no_node_modules())
        return ["node", os.path.join(PROGRAMS, "loop.js"), client]
    return command


def java(client):
    return ["java", "-XX:TieredStopAtLevel=1", "-cp", "/usr/share/java/spymemcached.jar",
            os.path.join(PROGRAMS, "Loop.java"), client]


def puma(running):
    return ["puma", "-b", f"tcp://127.0.0.1:{running.port}", "-t", f"{CONCURRENCY}:{CONCURRENCY}",
            os.path.join(PROGRAMS, "puma.ru")]


def nginx(running, upstream, location):
    configuration = running.write("nginx.conf", f"""
        daemon off;
        user root;
        worker_processes 1;
        pid {running.directory}/nginx.pid;
        error_log {running.directory}/error.log;
        events {{ worker_connections 256; }}
        http {{
            access_log off;
            client_body_temp_path {running.directory}/body;
            proxy_temp_path {running.directory}/proxy;
            fastcgi_temp_path {running.directory}/fastcgi;
            uwsgi_temp_path {running.directory}/uwsgi;
            scgi_temp_path {running.directory}/scgi;
            upstream behind {{ {upstream} }}
            server {{
                listen 127.0.0.1:{running.port};
                location / {{ {location} }}
            }}
        }}
        """)
    return ["/usr/sbin/nginx", "-p", running.directory, "-e", f"{running.directory}/error.log",
            "-c", configuration]


def nginx_memcached(*upstream):
    return lambda running: nginx(running, " ".join((f"server {running.server};", *upstream)),
                                 "set $memcached_key $args; memcached_pass behind;")


def nginx_before_fpm(running):
    page = os.path.join(PROGRAMS, "page.php")
    return nginx(running, f"server 127.0.0.1:{running.behind};",
                 f"fastcgi_pass behind; fastcgi_param SCRIPT_FILENAME {page};"
                 "fastcgi_param QUERY_STRING $args; fastcgi_param REQUEST_METHOD GET;")


def php_fpm(running):
    configuration = running.write("fpm.conf", f"""
        [global]
        error_log = {running.directory}/fpm.log
        [www]
        user = root
        listen = 127.0.0.1:{running.port}
        pm = static
        pm.max_children = 4
        clear_env = no
        """)
    return [sorted(glob.glob("/usr/sbin/php-fpm*"))[-1], "-F", "-R", "-y", configuration]


PHP_LOOP = ["php", os.path.join(PROGRAMS, "loop.php")]
RUBY_LOOP = ["ruby", os.path.join(PROGRAMS, "loop.rb")]

PYLIBMC = ("python3-pylibmc",)
PYMEMCACHE = ("python3-pymemcache",)
MEMCACHE = ("python3-memcache",)
GUNICORN = ("gunicorn", "python3-gevent")
DJANGO = (*GUNICORN, "python3-django")
UWSGI = ("uwsgi", "uwsgi-plugin-python3", *MEMCACHE)
PHP = ("php-cli", "php-memcached", "php-memcache")
FPM = ("php-fpm", "php-memcached", "php-memcache", "nginx")
DALLI = ("ruby", "ruby-dalli")
PERL = ("libcache-memcached-perl", "libcache-memcached-fast-perl")
NPM = ("nodejs", "npm")
SPY = ("libspymemcached-java", "default-jdk-headless")

KEEPS = "keeps its connections: nothing for a pool to do"
WAITS = "learns from the end of file behind its quit that the writes are done"

ROWS = {
    "pylibmc": Row("pylibmc, text", "loop", loop("pylibmc"), PYLIBMC, concurrency=1),
    "pylibmc-binary": Row("pylibmc, binary", "loop", loop("pylibmc-binary"), PYLIBMC,
                          concurrency=1),
    "pylibmc-threads": Row("pylibmc, text", "8 threads", loop("pylibmc", "threads"), PYLIBMC),
    "pylibmc-gevent": Row("pylibmc, binary", "gevent, which it blocks",
                          loop("pylibmc-binary", "gevent"), (*PYLIBMC, "python3-gevent"),
                          concurrency=1),
    "pylibmc-buffering": Row("pylibmc, no_block and buffer_requests", "loop",
                             loop("pylibmc-buffering"), PYLIBMC, concurrency=1),
    "pylibmc-noreply": Row("pylibmc, text, noreply writes last", "loop", loop("pylibmc-noreply"),
                           PYLIBMC, concurrency=1, expect="unchanged", note=WAITS),
    "pylibmc-binary-noreply": Row("pylibmc, binary, quiet writes last", "loop",
                                  loop("pylibmc-binary-noreply"), PYLIBMC, concurrency=1,
                                  expect="unchanged", note=WAITS),
    "php-memcached": Row("php-memcached, text", "php-cli, loop", PHP_LOOP, PHP, concurrency=1,
                         environment={"APP_CLIENT": "text"}),
    "php-memcached-binary": Row("php-memcached, binary", "php-cli, loop", PHP_LOOP, PHP,
                                concurrency=1, environment={"APP_CLIENT": "binary"}),
    "php-memcached-buffering": Row("php-memcached, OPT_NO_BLOCK and OPT_BUFFER_WRITES",
                                   "php-cli, loop", PHP_LOOP, PHP, concurrency=1,
                                   environment={"APP_CLIENT": "buffering"}),
    "php-memcache": Row("php-memcache", "php-cli, loop", PHP_LOOP, PHP, concurrency=1,
                        environment={"APP_CLIENT": "memcache"}),
    "fpm-memcached": Row("php-memcached, text", "php-fpm, 4 workers", php_fpm, FPM, concurrency=4,
                         environment={"APP_CLIENT": "text"}, serves=True, front=nginx_before_fpm),
    "fpm-memcached-binary": Row("php-memcached, binary", "php-fpm, 4 workers", php_fpm, FPM,
                                concurrency=4, environment={"APP_CLIENT": "binary"}, serves=True,
                                front=nginx_before_fpm),
    "fpm-memcache": Row("php-memcache", "php-fpm, 4 workers", php_fpm, FPM, concurrency=4,
                        environment={"APP_CLIENT": "memcache"}, serves=True,
                        front=nginx_before_fpm),
    "dalli": Row("dalli", "ruby, loop", RUBY_LOOP, DALLI, concurrency=1),
    "dalli-threads": Row("dalli", "ruby, 8 threads", RUBY_LOOP, DALLI),
    "dalli-puma": Row("dalli", "puma, 8 threads", puma, (*DALLI, "puma"), serves=True),
    "perl": Row("Cache::Memcached", "perl, loop", perl("plain"), PERL, concurrency=1),
    "perl-fast": Row("Cache::Memcached::Fast", "perl, loop", perl("fast"), PERL, concurrency=1),
    "perl-fast-noreply": Row("Cache::Memcached::Fast, noreply", "perl, loop",
                             perl("fast-noreply"), PERL, concurrency=1, alive=5),
    "node-memjs": Row("memjs", "node, 8 at a time", node("memjs"), NPM),
    "node-memcached": Row("memcached", "node, 8 at a time", node("memcached"), NPM),
    "node-net": Row("net, end()", "node, 8 at a time", node("net"), NPM),
    "nginx": Row("nginx memcached_pass", "server", nginx_memcached(), ("nginx",), serves=True,
                 reads=True),
    "nginx-keepalive": Row("nginx memcached_pass", "server, keepalive 1",
                           nginx_memcached("keepalive 1;"), ("nginx",), serves=True, reads=True),
    "twisted": Row("Twisted MemCacheProtocol", "8 at a time", program("twisted_loop.py"),
                   ("python3-twisted",)),
    "twisted-threads": Row("python-memcached", "Twisted deferToThread", listening("twisted_app.py"),
                           ("python3-twisted", *MEMCACHE), serves=True, expect="unchanged",
                           note=KEEPS),
    "cherrypy": Row("python-memcached", "CherryPy, 8 threads", listening("cherrypy_app.py"),
                    ("python3-cherrypy3", *MEMCACHE), serves=True, expect="unchanged", note=KEEPS),
    "asyncio": Row("asyncio.open_connection", "8 at a time", program("async_loop.py", "asyncio")),
    "uvloop": Row("asyncio.open_connection", "uvloop, 8 at a time",
                  program("async_loop.py", "uvloop"), ("python3-uvloop",)),
    "eventlet": Row("python-memcached", "eventlet, 8 greenlets", loop("memcache", "eventlet"),
                    (*MEMCACHE, "python3-eventlet")),
    "gevent": Row("python-memcached", "gevent, 8 greenlets", loop("memcache", "gevent"),
                  (*MEMCACHE, "python3-gevent")),
    "http-server": Row("python-memcached", "http.server, a thread per request",
                       listening("thread_per_request.py"), MEMCACHE, serves=True, alive=6),
    "uwsgi-processes": Row("python-memcached", "uwsgi, 2 processes",
                           uwsgi("memcache_app:app", "python3", "--processes", "2"), UWSGI,
                           serves=True, expect="unchanged", note=KEEPS),
    "uwsgi-threads": Row("python-memcached", "uwsgi, 8 threads",
                         uwsgi("memcache_app:app", "python3", "--threads", "8"), UWSGI,
                         serves=True, expect="unchanged", note=KEEPS),
    "uwsgi-gevent": Row("python-memcached", "uwsgi, gevent",
                        uwsgi("uwsgi_gevent_app", "python3,gevent_python3", "--gevent", "50"),
                        (*UWSGI, "uwsgi-plugin-gevent-python3"), serves=True),
    "django-memcached": Row("Django MemcachedCache", "gunicorn, gevent",
                            gunicorn("django_app", "-k", "gevent"), (*DJANGO, *MEMCACHE),
                            environment={"APP_BACKEND": "MemcachedCache"}, serves=True),
    "django-pymemcache": Row("Django PyMemcacheCache", "gunicorn, gevent",
                             gunicorn("django_app", "-k", "gevent"), (*DJANGO, *PYMEMCACHE),
                             environment={"APP_BACKEND": "PyMemcacheCache"}, serves=True),
    "django-pylibmc": Row("Django PyLibMCCache", "gunicorn, gevent",
                          gunicorn("django_app", "-k", "gevent"), (*DJANGO, *PYLIBMC),
                          environment={"APP_BACKEND": "PyLibMCCache"}, serves=True),
    "oslo": Row("oslo.cache, dogpile.cache.memcached", "a thread per operation",
                loop("oslo", "fresh-threads"), ("python3-oslo.cache", *MEMCACHE)),
    "oslo-pool": Row("oslo.cache, its own pool", "8 threads", loop("oslo-pool", "threads"),
                     ("python3-oslo.cache", *MEMCACHE), expect="unchanged", note=KEEPS),
    "pymemcache-noreply": Row("pymemcache, noreply writes last", "loop", loop("pymemcache-noreply"),
                              PYMEMCACHE, concurrency=1, alive=5),
    "pymemcache-noreply-threads": Row("pymemcache, noreply writes last", "8 threads",
                                      loop("pymemcache-noreply", "threads"), PYMEMCACHE),
    "spymemcached": Row("spymemcached, text", "4 threads", java("spy"), SPY, concurrency=4),
    "spymemcached-binary": Row("spymemcached, binary", "4 threads", java("spy-binary"), SPY,
                               concurrency=4),
    "java-socket": Row("java.net.Socket", "8 threads", java("socket"), SPY),
    "tools": Row("memccp and memccat", "a process per operation",
                 [os.path.join(PROGRAMS, "tools.sh")], ("libmemcached-tools",), concurrency=1,
                 expect="unchanged", note="processes of one connection each"),
    "memcslap": Row("memcslap", "8 threads", [os.path.join(PROGRAMS, "memcslap.sh")],
                    ("libmemcached-tools",), expect="unchanged", note=KEEPS),
    "ipv6-python-memcached": Row("python-memcached", "8 threads, IPv6",
                                 loop("memcache", "threads"), MEMCACHE, memcached=OverIpv6),
    "ipv6-pylibmc": Row("pylibmc, text", "loop, IPv6", loop("pylibmc"), PYLIBMC, concurrency=1,
                        memcached=OverIpv6),
    "ipv6-php-memcached": Row("php-memcached, text", "php-cli, loop, IPv6", PHP_LOOP, PHP,
                              concurrency=1, environment={"APP_CLIENT": "text"},
                              memcached=OverIpv6),
    "ipv6-dalli": Row("dalli", "ruby, loop, IPv6", RUBY_LOOP, DALLI, concurrency=1,
                      memcached=OverIpv6),
    "ipv6-perl-fast": Row("Cache::Memcached::Fast", "perl, loop, IPv6", perl("fast"), PERL,
                          concurrency=1, memcached=OverIpv6),
    "unix-python-memcached": Row("python-memcached", "8 threads, unix socket",
                                 loop("memcache", "threads"), MEMCACHE, memcached=OverUnixSocket,
                                 expect="unchanged", note="Unix sockets are not pooled"),
    "twemproxy": Row("python-memcached", "8 threads, twemproxy", loop("memcache", "threads"),
                     ("nutcracker", *MEMCACHE), memcached=Twemproxy),
    "twemproxy-noreply": Row("pymemcache, noreply writes last", "8 threads, twemproxy",
                             loop("pymemcache-noreply", "threads"), ("nutcracker", *PYMEMCACHE),
                             memcached=Twemproxy, expect="unchanged",
                             note="no fence that twemproxy knows proves such a write done"),
}


# Packages that others than Debian have under other names, and which may conflict with Debian's.
COMMANDS = {"nodejs": "node", "npm": "npm", "default-jdk-headless": "javac"}


def is_installed(package):
    if shutil.which(COMMANDS.get(package, "")):
        return True
    status = subprocess.run(["dpkg-query", "-W", "-f", "${db:Status-Status}", package],
                            capture_output=True, text=True)
    return status.stdout == "installed"


def why_no_backend(environment):
    """Why this machine's Django has not the cache backend that ENVIRONMENT names; empty when it has."""
    if environment.get("APP_BACKEND") != "MemcachedCache":
        return ""
    if tuple(map(int, importlib.metadata.version("django").split(".")[:2])) < (4, 1):
        return ""
    return "Django 4.1 dropped MemcachedCache"


@functools.lru_cache
def why_no_node_modules():
    """Installs them from the lock file, once for a build directory."""
    if os.path.exists(os.path.join(NODE, "node_modules", ".package-lock.json")):
        return ""
    os.makedirs(NODE, exist_ok=True)
    for name in ("package.json", "package-lock.json"):
        shutil.copy(os.path.join(PROGRAMS, "node", name), NODE)
    done = subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund",
                           "--fetch-retries=0", "--fetch-timeout=20000"], cwd=NODE,
                          capture_output=True, text=True)
    errors = re.findall(r"npm (?:error|ERR!) (.*)", done.stderr)
    return f"npm ci: {errors[0]}" if done.returncode != 0 else ""


def descriptors_of(process):
    """How many files PROCESS and its descendants have open, each of them."""
    counts = {}
    pids = [str(process.pid)]
    while pids:
        pid = pids.pop()
        with contextlib.suppress(OSError):
            counts[pid] = len(os.listdir(f"/proc/{pid}/fd"))
            for children in glob.glob(f"/proc/{pid}/task/*/children"):
                with open(children) as file:
                    pids += file.read().split()
    return counts


def growth(before, after):
    """How many files more are open. A process that was not there before has its parent's: uwsgi listens before it has
    made its workers."""
    return sum(after[pid] - before[pid] for pid in before.keys() & after.keys())


def run_loop(command, environment, server):
    before = server.stats()
    start = time.monotonic()
    done = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, timeout=SECONDS,
                          capture_output=True, text=True, preexec_fn=die_with_parent)
    seconds = time.monotonic() - start
    opened = server.connections_since(before)
    last = re.search(r"^(\d+) (\d+) (-?\d+)\n\Z", done.stdout, re.MULTILINE)
    answered, wrong, descriptors = map(int, last.groups()) if last else (0, 0, 0)
    return Outcome(opened, wrong, max(0, OPERATIONS - answered - wrong), descriptors,
                   seconds, done.returncode, done.stderr)


def run_server(row, running, command, environment, server):
    with contextlib.ExitStack() as stack:
        process = stack.enter_context(Process(command, running.port, environment, cwd=APPS)).process
        port = running.port
        if row.front:
            before_it = Running(running.directory, free_port(), running.server, running.port)
            stack.enter_context(Process(row.front(before_it), before_it.port))
            port = before_it.port
        if row.reads:
            server.store({f"key-{number}": f"value-of-key-{number}"
                          for number in range(OPERATIONS)})
        descriptors = descriptors_of(process)
        before = server.stats()
        start = time.monotonic()
        outcome = load(port, OPERATIONS, row.concurrency)
        seconds = time.monotonic() - start
        return Outcome(server.connections_since(before), outcome.wrong, outcome.failed,
                       growth(descriptors, descriptors_of(process)), seconds, process.poll() or 0, "")


def run(row, library, **more):
    """Runs ROW without the library, if it is None, or with it. Raises Missing if it cannot."""
    missing = [package for package in row.needs if not is_installed(package)]
    if missing:
        raise Missing("not installed: " + " ".join(missing))
    if reason := why_no_backend(row.environment):
        raise Missing(reason)
    with tempfile.TemporaryDirectory() as directory, row.memcached() as server:
        running = Running(directory, free_port(), server.address)
        command = row.command(running) if callable(row.command) else row.command
        variables = {"APP_SERVER": server.address, "APP_OPERATIONS": str(OPERATIONS),
                     "APP_CONCURRENCY": str(row.concurrency),
                     "PYTHONPATH": os.pathsep.join((APPS, PROGRAMS)),
                     "NODE_PATH": os.path.join(NODE, "node_modules"), **row.environment, **more}
        environment = preloaded(library, server.address, **variables)
        before = server.stats()
        if row.serves:
            outcome = run_server(row, running, command, environment, server)
        else:
            outcome = run_loop(command, environment, server)
        return outcome._replace(left=server.still_open(before))


def faults(row, without, outcome):
    """The faults of OUTCOME, one by one; WITHOUT is the outcome of the same row without the shim."""
    if outcome.wrong:
        yield f"{outcome.wrong} wrong answers"
    if outcome.failed:
        yield f"{outcome.failed} answers failed"
    if outcome.ended:
        yield f"ended with {outcome.ended}"
    # One more or less is no difference, because the server counts connections when its threads get to it.
    most = row.most if row.expect == "pooled" else max(row.most, without.opened + 3)
    if outcome.opened > most:
        yield f"{outcome.opened} connections, at most {most} are wanted"
    if outcome.left:
        yield f"{outcome.left} connections left on the server after the end"
    # The program's own open connections do not count, such as a server's to its clients.
    most_descriptors = max(0, without.descriptors) + row.most_descriptors
    if outcome.descriptors > most_descriptors:
        yield f"{outcome.descriptors} more descriptors, at most {most_descriptors} are wanted"
    # This is no measurement: a program that waits for a delayed acknowledgement takes many times as long.
    if outcome.seconds > 3 * without.seconds + 2:
        yield f"{outcome.seconds:.1f} seconds instead of {without.seconds:.1f}"


def report(name, table):
    row = ROWS[name]
    try:
        without, with_it = run(row, None), run(row, LIBRARY)
    except (Missing, RuntimeError, subprocess.TimeoutExpired) as reason:
        print(f"| {row.client} | {row.how} | | | {reason} |" if table else f"{name}: {reason}")
        return isinstance(reason, Missing)
    found = list(faults(row, without, with_it))
    if table:
        print(f"| {row.client} | {row.how} | {without.opened} | {with_it.opened} "
              f"| {'; '.join([row.note] * bool(row.note) + found)} |", flush=True)
        return not found
    print(f"{name}: {without.opened} -> {with_it.opened} connections, "
          f"{with_it.descriptors} more descriptors, {without.seconds:.1f} -> "
          f"{with_it.seconds:.1f} seconds: {'; '.join(found) or 'right'}", flush=True)
    for outcome in (without, with_it):
        if outcome.wrong or outcome.failed or outcome.ended:
            print(*outcome.errors.splitlines()[-5:], sep="\n")
    return not found


def why(name):
    """The shim's reasons for connections it did not keep, each with its count."""
    with tempfile.NamedTemporaryFile("r") as log:
        run(ROWS[name], LIBRARY, MCPOOL_LOG=log.name, MCPOOL_LOG_LEVEL="debug")
        reasons = collections.Counter(line.partition(": not kept: ")[2].strip() for line in log)
    del reasons[""]
    print(f"{name}:", "; ".join(f"{count} {reason}" for reason, count in reasons.items()) or "none")


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--why"]:
        for name in arguments[1:]:
            why(name)
        return 0
    table = arguments == ["--table"]
    if table:
        print("| client | how it was run | connections without | with | note |")
        print("|---|---|---|---|---|")
    names = ROWS if table else arguments or ROWS
    return 0 if all([report(name, table) for name in names]) else 1


if __name__ == "__main__":
    sys.exit(main())
