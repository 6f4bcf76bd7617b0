"""The client matrix of today: the newest versions, beside Debian's of matrix.py.

Usage: newest.py [ROW...]     runs rows, all by default, and says of each what came of it
       newest.py --table      the same as a Markdown table, the second of README.md
       newest.py --why ROW... runs rows with the shim and counts why connections were not kept

The versions are pinned below registry/, a folder for each registry, with the programs that only
these rows have. They are fetched by the registry's own client into BUILD/registry. Out of reach,
the registry's rows are Missing; when the registry answers and the client fails, the rows fail.
"""

import dataclasses
import functools
import glob
import hashlib
import itertools
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request

import matrix
from matrix import (APPS, BUILD, LIBRARY, OPERATIONS, PROGRAMS, Missing, Row, Volatile,
                    is_installed, run)
from support import PYTHON, free_port, stats_of

PINNED = os.path.join(matrix.HERE, "registry")
FETCHED = os.path.abspath(os.path.join(BUILD, "registry"))
MCPOOL = os.path.abspath(os.path.join(BUILD, "mcpool"))
# Seconds for each fetch or compilation: enough for a slow mirror and a busy machine.
PATIENCE = 420

# An address that answers anything when the registry is in reach.
REGISTRIES = {
    "python": "https://pypi.org/simple/six/",
    "node": "https://registry.npmjs.org/is-number",
    "java": "https://repo1.maven.org/maven2/",
    "rust": "https://index.crates.io/config.json",
    "go": "https://proxy.golang.org/",
}


@dataclasses.dataclass
class Newest(Row):
    """A row with the versions that its table line shows, as "pypi:NAME" or "deb:NAME"."""
    versions: tuple = ()
    # `make test` runs one row of each kind.
    daily: bool = False
    # 8 at a time need 8, and the server may count one or two late. More where a client closes some
    # time after its answer, or behind the response to its request.
    alive: float = 1.25
    # Where nothing is pooled: the reason that the log, or `mcpool check`, must name.
    reason: str = ""
    # The library is not even loaded, so `mcpool check` must say so.
    checked: bool = False


class Secured(Volatile):
    """A memcached that requires more than a connection, and files for that which it can read."""

    def __init__(self):
        self.directory = tempfile.TemporaryDirectory()
        os.chmod(self.directory.name, 0o755)
        super().__init__(*self.options())

    def file(self, name):
        return os.path.join(self.directory.name, name)

    def stop(self):
        super().stop()
        self.directory.cleanup()


class OverTls(Secured):
    """A memcached with a second port, for requests that do not come from the client."""

    def options(self):
        called(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                "-subj", "/CN=localhost", "-keyout", self.file("key"),
                "-out", self.file("certificate")])
        os.chmod(self.file("key"), 0o644)
        self.plain = free_port()
        return ("-Z", "-o", f"ssl_chain_cert={self.file('certificate')},ssl_key={self.file('key')}",
                "-l", f"notls:127.0.0.1:{self.plain}")

    def stats(self):
        return stats_of(self.plain)


class WithLogin(Secured):
    def options(self):
        with open(self.file("users"), "w") as file:
            file.write("bob:secret\n")
        os.chmod(self.file("users"), 0o644)
        return ("-Y", self.file("users"))

    def stats(self):
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.sendall(b"set login 0 0 10\r\nbob secret\r\nstats\r\n")
            lines = (line.split(None, 2) for line in connection.makefile())
            words = itertools.takewhile(lambda line: line != ["END"], lines)
            return {word[1]: word[2].strip() for word in words if word[0] == "STAT"}


def reachable(registry):
    try:
        urllib.request.urlopen(REGISTRIES[registry], timeout=20).close()
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
    return True


def called(command, **more):
    """Runs COMMAND; when it fails the end of its output is the error."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT, text=True, timeout=PATIENCE, **more)
    if done.returncode != 0:
        raise RuntimeError(f"{command[0]}: {done.stdout[-600:]}")


def pinned_text(folder):
    """All that is pinned in a folder, to notice changes."""
    text = hashlib.sha256()
    for path in sorted(glob.glob(os.path.join(PINNED, folder, "**"), recursive=True)):
        if os.path.isfile(path):
            with open(path, "rb") as file:
                text.update(file.read())
    return text.hexdigest()


def fetched(registry, folder, make):
    """The folder below BUILD/registry that MAKE(pinned, folder) fills; it is made again only when
    what is pinned has changed."""
    place = os.path.join(FETCHED, folder)
    stamp = os.path.join(place, "stamp")
    pinned = pinned_text(folder)
    if os.path.exists(stamp):
        with open(stamp) as file:
            if file.read() == pinned:
                return place
    shutil.rmtree(place, ignore_errors=True)
    os.makedirs(place)
    try:
        make(os.path.join(PINNED, folder), place)
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as error:
        if reachable(registry):
            raise RuntimeError(f"{folder}: {error}") from error
        raise Missing(f"out of reach: {REGISTRIES[registry]}") from error
    with open(stamp, "w") as file:
        file.write(pinned)
    return place


def version_of(name):
    asked = [name, "version" if name == "go" else "--version"]
    said = subprocess.run(asked, capture_output=True, text=True).stdout
    return re.search(r"[0-9][0-9.]*", said).group()


def command_of(name, least="0"):
    """NAME, when it is there and not older than the pinned packages need."""
    if not shutil.which(name):
        raise Missing(f"not installed: {name}")
    version = version_of(name)
    if [*map(int, version.split("."))] < [*map(int, least.split("."))]:
        raise Missing(f"{name} {version} is older than {least}")
    return name


# Python: one environment with everything, and versions beside it that come before it.

BESIDE = {"uvloop-0.22": os.path.join(FETCHED, "python", "uvloop-0.22")}
VENV = os.path.join(FETCHED, "python", "venv")


def make_python(pinned, place):
    pip = [os.path.join(place, "venv", "bin", "python"), "-m", "pip", "--disable-pip-version-check",
           "install", "-q", "--no-cache-dir", "--only-binary", ":all:"]
    called([PYTHON, "-m", "venv", os.path.join(place, "venv")])
    called([*pip, "-r", os.path.join(pinned, "requirements.txt")])
    for name, target in BESIDE.items():
        called([*pip, "--target", target, "-r", os.path.join(pinned, f"{name}.txt")])


# For which all pinned versions have binaries; pylibmc 1.6.3 has none for 3.13.
PINNED_PYTHON = (3, 11)


@functools.lru_cache
def why_no_python():
    if not is_installed("python3-venv"):
        return "not installed: python3-venv"
    if sys.version_info[:2] != PINNED_PYTHON:
        return "its packages are pinned for Python {}.{}".format(*PINNED_PYTHON)
    try:
        fetched("python", "python", make_python)
    except Missing as reason:
        return str(reason)
    return ""


def venv(*command):
    """The command, when the environment is ready; a word bin/NAME is one of its programs."""
    def make(running):
        if why_no_python():
            raise Missing(why_no_python())
        words = command[0](running) if callable(command[0]) else command
        return [os.path.join(VENV, word) if word.startswith("bin/") else word for word in words]
    return make


def py(name, *arguments):
    return venv("bin/python", os.path.join(PROGRAMS, name), *arguments)


def py_loop(client, way="threads"):
    return py("loop.py", client, way)


def py_server(*command):
    """A server; PORT and ADDRESS in its words are where it is to listen."""
    return venv(lambda running: [word.replace("ADDRESS", f"127.0.0.1:{running.port}")
                                 .replace("PORT", str(running.port)) for word in command])


def gunicorn(app, *options):
    return py_server("bin/python", "-m", "gunicorn", "-b", "ADDRESS", *options, f"{app}:app")


def uvicorn(app, *options):
    return py_server("bin/python", "-m", "uvicorn", "--port", "PORT", "--no-access-log", *options,
                     f"{app}:app")


def hypercorn(app, *options):
    return py_server("bin/python", "-m", "hypercorn", "-b", "ADDRESS", *options, f"{app}:app")


def granian(app, *options):
    return py_server("bin/granian", "--port", "PORT", "--no-access-log", *options, f"{app}:app")


BEFORE = {name: {"PYTHONPATH": os.pathsep.join((path, APPS, PROGRAMS))}
          for name, path in BESIDE.items()}
# Whenever its descriptors need a larger table the idle connections are closed.
GROWS = "keeps 80 connections of its own clients"
STREAMS = {"APP_LOOKUP": "streams"}
THREADS = {"APP_LOOKUP": "threads"}


# Node: the interpreters are npm packages as well; one of them comes with the clients.

NODE_VERSIONS = ("20", "22", "24", "26")


def make_node(pinned, place):
    for name in ("package.json", "package-lock.json"):
        shutil.copy(os.path.join(pinned, name), place)
    called([command_of("npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund",
            "--fetch-retries=1", "--fetch-timeout=60000", "--cache",
            os.path.join(place, "cache")], cwd=place)


@functools.lru_cache
def why_no_node(folder):
    try:
        fetched("node", folder, make_node)
    except Missing as reason:
        return str(reason)
    return ""


def node(version, client, way="alone"):
    folder = "node" if version == "24" else "nodes"

    def command(_):
        if os.uname().machine != "x86_64":
            raise Missing("its binaries are pinned for x86-64")
        reason = why_no_node("node") or why_no_node(folder)
        if reason:
            raise Missing(reason)
        return [os.path.join(FETCHED, folder, "node_modules", f"node{version}", "bin", "node"),
                os.path.join(PROGRAMS, "loop.js"), client, way]
    return command


NODE = {"NODE_PATH": os.path.join(FETCHED, "node", "node_modules")}


def node_rows():
    for version in NODE_VERSIONS:
        def row(client, how="8 at a time", way="alone", **more):
            versions = (f"npm:node{version}", *([] if client == "net" else [f"npm:{client}"]))
            return Newest(client, f"node {version}, {how}", node(version, client, way),
                          environment=NODE, versions=versions, **more)
        yield f"node{version}-net", row("net", daily=version == "24")
        yield f"node{version}-memjs", row("memjs", daily=version == "24")
        # It closes some time after the last answer.
        yield f"node{version}-memcached", row("memcached", alive=2.25)
        yield f"node{version}-threads", row("net", "4 worker_threads", "threads")
        yield f"node{version}-cluster", row("net", "a cluster of 4", "cluster")
        # Its packages want at least 22.18.
        if version != "20":
            yield f"node{version}-memcache", row("memcache")


# Java: the JDKs are the machine's. Amazon's client has spymemcached's names, and comes before it.

JARS = os.path.join(FETCHED, "java")


def make_java(pinned, place):
    with open(os.path.join(pinned, "jars.txt")) as file:
        jars = [line.split() for line in file if not line.startswith("#")]
    for path, wanted in jars:
        with urllib.request.urlopen(REGISTRIES["java"] + path, timeout=60) as answer:
            content = answer.read()
        if hashlib.sha256(content).hexdigest() != wanted:
            raise RuntimeError(f"not what is pinned: {path}")
        with open(os.path.join(place, os.path.basename(path)), "wb") as file:
            file.write(content)
    called([command_of("javac"), "-nowarn", "-Xlint:-deprecation", "--release", "17", "-cp",
            os.path.join(place, "*"), "-d", place,
            *glob.glob(os.path.join(pinned, "*.java"))])


@functools.lru_cache
def why_no_java(folder):
    try:
        fetched("java", folder, make_java)
    except Missing as reason:
        return str(reason)
    return ""


@functools.lru_cache
def jdks():
    """The JDKs of this machine, by the numbers of their versions."""
    found = {}
    for path in glob.glob("/usr/lib/jvm/*/release"):
        with open(path) as file:
            version = re.search(r'^JAVA_VERSION="([\d.]+)', file.read(), re.MULTILINE)
        if version:
            numbers = tuple(map(int, version.group(1).split(".")))
            found[numbers] = os.path.join(os.path.dirname(path), "bin", "java")
    return found


def jdk(first):
    """The version of the oldest JDK from 17 on, when FIRST is that; else of the newest."""
    fit = sorted(numbers for numbers in jdks() if numbers[0] >= first)
    if not fit:
        raise Missing(f"no JDK {first} or later")
    return fit[0] if first == 17 else fit[-1]


def java(first, client, jar=""):
    def command(_):
        program = jdks()[jdk(first)]
        if why_no_java("java"):
            raise Missing(why_no_java("java"))
        amazon = glob.glob(os.path.join(JARS, "elasticache*.jar"))[0]
        jars = [path for path in glob.glob(os.path.join(JARS, "*.jar")) if path != amazon]
        path = [JARS, *([amazon] if jar == "elasticache" else []), *sorted(jars)]
        return [program, "-XX:TieredStopAtLevel=1", "-cp", os.pathsep.join(path), "Newest", client]
    return command


def netty(transport):
    def command(_):
        program = jdks()[jdk(17)]
        if os.uname().machine != "x86_64":
            raise Missing("its natives are pinned for x86-64")
        if why_no_java("netty"):
            raise Missing(why_no_java("netty"))
        folder = os.path.join(FETCHED, "netty")
        path = [folder, *glob.glob(os.path.join(folder, "*.jar"))]
        return [program, "-XX:TieredStopAtLevel=1", "-cp", os.pathsep.join(path), "Netty",
                transport]
    return command


def java_rows():
    for first, label in ((17, "JDK 17"), (21, "the newest JDK")):
        # The clients close in threads of their own, some time after they were told to.
        def row(client, name, versions=(), threads=4, jar="", alive=3, **more):
            return Newest(client, f"{label}, {threads} threads", java(first, name, jar),
                          concurrency=threads, alive=alive,
                          versions=(f"jdk:{first}", *versions), **more)
        spy, amazon = ("maven:spymemcached",), ("maven:elasticache-java-cluster-client",)
        daily = first == 17
        yield f"java{first}-spy", row("spymemcached, text", "spy", spy)
        yield f"java{first}-spy-binary", row("spymemcached, binary", "spy-binary", spy)
        yield f"java{first}-elasticache", row("ElastiCache client, text", "spy", amazon,
                                              jar="elasticache")
        for name in ("xmemcached", "folsom"):
            version = (f"maven:{name}",)
            yield f"java{first}-{name}", row(f"{name}, text", name, version)
            yield f"java{first}-{name}-binary", row(f"{name}, binary", f"{name}-binary", version)
        yield f"java{first}-nio", row("NIO, OP_CONNECT", "nio", threads=8, alive=1.25,
                                       daily=daily)
        yield f"java{first}-socket", row("java.net.Socket", "socket", threads=8, alive=1.25)
        if first != 17:
            # Its calls never go through libc; `mcpool check` of the process says so.
            for transport, expect in (("nio", "pooled"), ("epoll", "pooled"),
                                      ("io_uring", "unchanged")):
                yield f"netty-{transport}", Newest(
                    f"Netty, {transport}", "JDK 17, 2 event loops, 8 at a time", netty(transport),
                    versions=("jdk:17", "maven:netty-transport"), expect=expect,
                    note="nothing that libc sees; `mcpool check PID` tells"
                    if expect == "unchanged" else "")
            yield "java-virtual", row("java.net.Socket in virtual threads", "virtual", threads=8,
                                      alive=1.25)


# Rust and Go: compiled here, from sources that their own tools fetch and check.

def make_rust(pinned, place):
    environment = dict(os.environ, CARGO_HOME=os.path.join(place, "cargo"),
                       CARGO_TARGET_DIR=os.path.join(place, "target"))
    called([command_of("cargo", "1.88"), "build", "-q", "--locked", "--manifest-path",
            os.path.join(pinned, "Cargo.toml")], env=environment)


def make_go(pinned, place):
    for cgo in "01":
        environment = dict(os.environ, CGO_ENABLED=cgo, GOPATH=os.path.join(place, "path"),
                           GOCACHE=os.path.join(place, "cache"), GOTOOLCHAIN="local",
                           GOFLAGS="-modcacherw")
        called([command_of("go", "1.24"), "build", "-o", os.path.join(place, f"loop-cgo{cgo}"),
                "."], cwd=pinned, env=environment)


@functools.lru_cache
def why_no(language):
    try:
        fetched(language, language, {"rust": make_rust, "go": make_go}[language])
    except Missing as reason:
        return str(reason)
    return ""


def compiled(language, *command):
    def make(_):
        if why_no(language):
            raise Missing(why_no(language))
        return [os.path.join(FETCHED, language, command[0]), *command[1:]]
    return make


def rust(*command):
    return compiled("rust", os.path.join("target", "debug", command[0]), *command[1:])


def without_rings(command):
    return lambda running: [PYTHON, os.path.join(PROGRAMS, "without_rings.py"), *command(running)]


def asio(running):
    program = os.path.join(running.directory, "asio")
    called(["g++", "-std=c++17", "-pthread", "-o", program, os.path.join(PROGRAMS, "loop.cpp")])
    return [program]


ROWS = {
    **dict(node_rows()),
    **dict(java_rows()),
    "uvloop": Newest("asyncio streams", "uvloop, 8 at a time",
                     py("async_loop.py", "uvloop"), versions=("pypi:uvloop",), daily=True),
    "uvloop-0.22": Newest("asyncio streams", "uvloop, 8 at a time",
                          py("async_loop.py", "uvloop"), environment=BEFORE["uvloop-0.22"],
                          versions=("pypi:uvloop-0.22/uvloop",), expect="unchanged",
                          reason="IO_URING", note="libuv 1.48: a ring that the kernel polls"),
    "uvloop-0.22-advised": Newest("asyncio streams", "uvloop, UV_USE_IO_URING=0, 8 at a time",
                                  py("async_loop.py", "uvloop"),
                                  environment={**BEFORE["uvloop-0.22"], "UV_USE_IO_URING": "0"},
                                  versions=("pypi:uvloop-0.22/uvloop",)),
    "uvicorn": Newest("asyncio streams", "uvicorn, its default loop (uvloop)", uvicorn("asgi_app"),
                      environment=STREAMS, serves=True, daily=True,
                      versions=("pypi:uvicorn", "pypi:uvloop")),
    "uvicorn-threads": Newest("python-memcached", "uvicorn, uvloop, asyncio.to_thread",
                              uvicorn("asgi_app"), environment=THREADS, serves=True,
                              versions=("pypi:uvicorn", "pypi:uvloop", "pypi:python-memcached")),
    "uvicorn-asyncio": Newest("asyncio streams", "uvicorn, asyncio",
                              uvicorn("asgi_app", "--loop", "asyncio"), environment=STREAMS,
                              serves=True, versions=("pypi:uvicorn",)),
    "gevent": Newest("python-memcached", "gevent, 8 greenlets", py_loop("memcache", "gevent"),
                     daily=True, versions=("pypi:gevent", "pypi:python-memcached")),
    # A greenlet does not run again at once after its close().
    "gevent-libuv": Newest("python-memcached", "gevent on libuv, 8 greenlets",
                           py_loop("memcache", "gevent"), alive=1.9,
                           environment={"GEVENT_LOOP": "libuv-cffi"},
                           versions=("pypi:gevent", "pypi:python-memcached")),
    "python-memcached": Newest("python-memcached", "8 threads", py_loop("memcache"),
                               versions=("pypi:python-memcached",)),
    "pymemcache": Newest("pymemcache Client", "8 threads", py_loop("pymemcache"),
                         versions=("pypi:pymemcache",)),
    "pymemcache-noreply": Newest("pymemcache Client, noreply writes last", "8 threads",
                                 py_loop("pymemcache-noreply"), alive=3,
                                 versions=("pypi:pymemcache",)),
    "pymemcache-pooled": Newest("pymemcache PooledClient", "8 threads",
                                py_loop("pymemcache-pooled"), versions=("pypi:pymemcache",)),
    "pymemcache-hash": Newest("pymemcache HashClient", "8 threads", py_loop("pymemcache-hash"),
                              versions=("pypi:pymemcache",)),
    "pymemcache-retrying": Newest("pymemcache RetryingClient", "8 threads",
                                  py_loop("pymemcache-retrying"), versions=("pypi:pymemcache",)),
    "pymemcache-gevent": Newest("pymemcache HashClient", "gevent, 8 greenlets",
                                py_loop("pymemcache-hash", "gevent"),
                                versions=("pypi:gevent", "pypi:pymemcache")),
    "pylibmc": Newest("pylibmc, text", "8 threads", py_loop("pylibmc"),
                      versions=("pypi:pylibmc",)),
    "pylibmc-binary": Newest("pylibmc, binary", "8 threads", py_loop("pylibmc-binary"),
                             versions=("pypi:pylibmc",)),
    "bmemcached": Newest("python-binary-memcached", "8 threads", py_loop("bmemcached"),
                         versions=("pypi:python-binary-memcached",)),
    "limits": Newest("limits, MemcachedStorage", "8 threads", py_loop("limits"),
                     versions=("pypi:limits", "pypi:pymemcache")),
    # aiomcache, which aiocache uses, opens two for each client.
    **{f"{client}{suffix}": Newest(client, f"{loop}, 8 at a time",
                                   py("async_loop.py", loop, client), alive=alive,
                                   versions=(f"pypi:{client}", *uses))
       for client, alive in (("aiomcache", 2.25), ("emcache", 1.25), ("aiocache", 2.25))
       for loop, suffix, uses in (("asyncio", "", ()), ("uvloop", "-uvloop", ("pypi:uvloop",)))},
    "gunicorn-gevent": Newest("python-memcached", "gunicorn, gevent",
                              gunicorn("memcache_app", "-k", "gevent"), serves=True, alive=3,
                              versions=("pypi:gunicorn", "pypi:gevent", "pypi:python-memcached")),
    "gunicorn-gthread": Newest("python-memcached, a client per request", "gunicorn, gthread",
                               gunicorn("fresh_memcache_app", "-k", "gthread", "--threads", "8"),
                               serves=True, versions=("pypi:gunicorn", "pypi:python-memcached")),
    "gunicorn-asgi": Newest("asyncio streams", "gunicorn, asgi",
                            gunicorn("asgi_app", "-k", "asgi"), environment=STREAMS, serves=True,
                            alive=1.5,
                            versions=("pypi:gunicorn",)),
    "hypercorn": Newest("asyncio streams", "hypercorn, asyncio", hypercorn("asgi_app"),
                        environment=STREAMS, serves=True, alive=3, note=GROWS,
                        versions=("pypi:Hypercorn",)),
    "hypercorn-uvloop": Newest("asyncio streams", "hypercorn, uvloop",
                               hypercorn("asgi_app", "-k", "uvloop"), environment=STREAMS,
                               serves=True, alive=3, note=GROWS,
                               versions=("pypi:Hypercorn", "pypi:uvloop")),
    "granian-asgi": Newest("asyncio streams", "granian, ASGI",
                           granian("asgi_app", "--interface", "asgi"), environment=STREAMS,
                           serves=True, versions=("pypi:granian",)),
    "granian-wsgi": Newest("python-memcached, a client per request", "granian, WSGI",
                           granian("fresh_memcache_app", "--interface", "wsgi",
                                   "--blocking-threads", "8"),
                           serves=True, versions=("pypi:granian", "pypi:python-memcached")),
    **{f"django-{short}-{way}": Newest(f"Django {backend}", how, serve(app), serves=True, alive=3,
                                       environment={"APP_BACKEND": backend}, note=note,
                                       versions=("pypi:Django", *server, package))
       for short, backend, package in (
           ("pymemcache", "PyMemcacheCache", "pypi:pymemcache"),
           ("pylibmc", "PyLibMCCache", "pypi:pylibmc"))
       for way, how, app, serve, note, server in (
           ("gevent", "gunicorn, gevent", "django_app",
            lambda app: gunicorn(app, "-k", "gevent"), "", ("pypi:gunicorn", "pypi:gevent")),
           ("asgi", "uvicorn, uvloop", "django_asgi_app", uvicorn,
            "left to the garbage collector, which runs here in every request",
            ("pypi:uvicorn", "pypi:uvloop")))},
    "celery-prefork": Newest("python-memcached", "celery, 4 processes",
                             py("celery_loop.py", "prefork"), concurrency=4, alive=2,
                             versions=("pypi:celery", "pypi:python-memcached")),
    "celery-gevent": Newest("python-memcached", "celery, gevent", py("celery_loop.py", "gevent"),
                            versions=("pypi:celery", "pypi:gevent", "pypi:python-memcached")),
    "rust": Newest("std::net::TcpStream", "8 threads", rust("std_loop", "plain"),
                   versions=("command:rustc",)),
    "rust-try-clone": Newest("std::net::TcpStream, try_clone()", "8 threads",
                             rust("std_loop", "try-clone"), daily=True,
                             versions=("command:rustc",)),
    "rust-tokio": Newest("tokio::net::TcpStream", "8 tasks", rust("loop", "tokio"), daily=True,
                         versions=("command:rustc", "crate:tokio")),
    "rust-memcache": Newest("the crate memcache", "8 threads", rust("loop", "memcache"),
                            versions=("command:rustc", "crate:memcache")),
    "rust-async-memcached": Newest("the crate async-memcached", "8 tasks",
                                   rust("loop", "async-memcached"),
                                   versions=("command:rustc", "crate:async-memcached")),
    "go-static": Newest("gomemcache", "Go, static, 8 goroutines", compiled("go", "loop-cgo0"),
                        versions=("command:go", "go:gomemcache"), expect="unchanged",
                        reason="it is written in Go", checked=True),
    "go-cgo": Newest("gomemcache", "Go with cgo, 8 goroutines", compiled("go", "loop-cgo1"),
                     versions=("command:go", "go:gomemcache"), expect="unchanged",
                     reason="GO_PROGRAM"),
    "asio": Newest("Boost.Asio", "8 at a time", asio, needs=("g++", "libboost-dev"),
                   versions=("deb:libboost-dev",)),
    "dalli-fibers": Newest("dalli", "ruby, 8 Fibers", ["ruby", os.path.join(PROGRAMS, "fibers.rb")],
                           needs=matrix.DALLI, versions=("deb:ruby", "deb:ruby-dalli")),
    "tcl": Newest("socket", "tclsh, 8 at a time", ["tclsh", os.path.join(PROGRAMS, "loop.tcl")],
                  needs=("tcl",), versions=("deb:tcl",)),
    **{f"erlang{suffix}": Newest(f"gen_tcp, {how}", "erlang, 8 processes",
                                 ["escript", os.path.join(PROGRAMS, "loop.erl"), how],
                                 needs=("erlang-base",), versions=("deb:erlang-base",))
       for how, suffix in (("inet", ""), ("socket", "-socket"), ("active", "-active"))},
    "lua": Newest("LuaSocket", "lua5.4, 8 coroutines",
                  ["lua5.4", os.path.join(PROGRAMS, "loop.lua")], needs=("lua5.4", "lua-socket"),
                  versions=("deb:lua5.4", "deb:lua-socket")),
    **{f"{name}-no-rings": Newest(client, how, without_rings(command), environment=environment,
                                  needs=("python3-seccomp",), versions=versions)
       for name, client, how, command, environment, versions in (
           ("node24", "net", "node 24, 8 at a time, io_uring forbidden", node("24", "net"), NODE,
            ("npm:node24",)),
           ("uvloop", "asyncio streams", "uvloop, 8 at a time, io_uring forbidden",
            py("async_loop.py", "uvloop"), {}, ("pypi:uvloop",)))},
    "node24-tls": Newest("tls", "node 24, 8 at a time", node("24", "tls"), environment=NODE,
                         memcached=OverTls, versions=("npm:node24",), expect="unchanged",
                         reason="TLS"),
    "node24-login": Newest("net, ASCII authentication", "node 24, 8 at a time",
                           node("24", "login"), environment=NODE, memcached=WithLogin,
                           versions=("npm:node24",), expect="unchanged", reason="MAYBE_AUTH"),
    "emcache-login": Newest("emcache, ASCII authentication", "asyncio, 8 at a time",
                            py("async_loop.py", "asyncio", "emcache-login"), memcached=WithLogin,
                            versions=("pypi:emcache",), expect="unchanged", reason="AUTH"),
    "fork": Newest("python-memcached", "a fork per task", py("fork_loop.py"), expect="unchanged",
                   note="processes of one connection each", versions=("pypi:python-memcached",)),
}


def pins():
    """All that is pinned: the name a row has for it, and its version."""
    found = {}
    for path in glob.glob(os.path.join(PINNED, "python", "*.txt")):
        beside = os.path.basename(path)[:-len(".txt")]
        with open(path) as file:
            for name, version in re.findall(r"^([\w.-]+)==(\S+)", file.read(), re.MULTILINE):
                kind = "" if beside == "requirements" else f"{beside}/"
                found[f"pypi:{kind}{name}"] = f"{name} {version}"
    for folder in ("node", "nodes"):
        with open(os.path.join(PINNED, folder, "package.json")) as file:
            for name, version in json.load(file)["dependencies"].items():
                label = "node" if name.startswith("node2") else name
                found[f"npm:{name}"] = f"{label} {version.rpartition('@')[2]}"
    with open(os.path.join(PINNED, "rust", "Cargo.lock")) as file:
        for name, version in re.findall(r'^name = "(.+)"\nversion = "(.+)"', file.read(),
                                        re.MULTILINE):
            found[f"crate:{name}"] = f"{name} {version}"
    with open(os.path.join(PINNED, "go", "go.mod")) as file:
        for name, version in re.findall(r"^require \S+/(\S+) (\S+)", file.read(), re.MULTILINE):
            # A version that is a commit shows as its date.
            found[f"go:{name}"] = f"{name} {re.split('[0-9]{6}-', version)[0]}"
    for folder in ("java", "netty"):
        with open(os.path.join(PINNED, folder, "jars.txt")) as file:
            for name, version in re.findall(r"^\S+/([^/ ]+)/([^/ ]+)/\S+ \w+$", file.read(),
                                            re.MULTILINE):
                found[f"maven:{name}"] = f"{name} {version}"
    return found


def versions_of(row):
    known = pins()
    return ", ".join(known.get(name) or version_here(name) for name in row.versions)


# Not pinned: taken as this machine has it.
HERE_ONLY = ("deb:", "jdk:", "command:")


def version_here(name):
    """Of what is HERE_ONLY."""
    kind, _, name = name.partition(":")
    if kind == "deb":
        asked = ["dpkg-query", "-W", "-f", "${Version}", name]
        version = subprocess.run(asked, capture_output=True, text=True).stdout
        return f"{name} {re.split('[-+]', version.rpartition(':')[2])[0]}"
    if kind == "jdk":
        return "JDK " + ".".join(map(str, jdk(int(name))))
    if kind == "command":
        return f"{name} {version_of(name)}"
    raise KeyError(name)


def faults(row, without, outcome, said):
    """As matrix.faults(), and what makes the comparison worthless; SAID is the log's text."""
    if without.wrong or without.failed or without.ended:
        yield (f"without the library {without.wrong} wrong, {without.failed} failed, "
               f"ended with {without.ended}")
    if row.expect == "pooled" and without.opened < OPERATIONS:
        yield f"only {without.opened} connections without the library"
    yield from matrix.faults(row, without, outcome)
    if row.reason and row.reason not in said:
        yield f"the reason told is not {row.reason}"


def both(row):
    """Runs ROW without and with the library; also what it said of connections not kept."""
    without = run(row, None)
    if not row.reason:
        return without, run(row, LIBRARY), ""
    with tempfile.NamedTemporaryFile("r") as log:
        outcome = run(row, LIBRARY, MCPOOL_LOG=log.name)
        said = log.read()
    if row.checked:
        said = subprocess.run([MCPOOL, "check", "--", *row.command(None)], capture_output=True,
                              text=True).stdout
    return without, outcome, said


def report(name, table):
    row = ROWS[name]
    try:
        without, outcome, said = both(row)
    except (Missing, RuntimeError, subprocess.TimeoutExpired) as reason:
        print(f"| {row.client} | {row.how} | {versions_of(row)} | | | {reason} |" if table
              else f"{name}: {reason}", flush=True)
        return isinstance(reason, Missing)
    found = list(faults(row, without, outcome, said))
    if table:
        notes = [note for note in (row.reason, row.note, *found) if note]
        print(f"| {row.client} | {row.how} | {versions_of(row)} | {without.opened} "
              f"| {outcome.opened} | {'; '.join(notes)} |", flush=True)
        return not found
    print(f"{name}: {without.opened} -> {outcome.opened} connections, "
          f"{without.descriptors} -> {outcome.descriptors} more descriptors, "
          f"{without.seconds:.1f} -> {outcome.seconds:.1f} seconds: "
          f"{'; '.join(found) or 'right'}", flush=True)
    for one in (without, outcome):
        if one.wrong or one.failed or one.ended:
            print(*one.errors.splitlines()[-5:], sep="\n", flush=True)
    return not found


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--why"]:
        matrix.ROWS.update(ROWS)
        for name in arguments[1:]:
            matrix.why(name)
        return 0
    table = arguments == ["--table"]
    if table:
        print("| client | how it was run | versions | connections without | with | note |")
        print("|---|---|---|---|---|---|")
    return 0 if all([report(name, table) for name in (not table and arguments) or ROWS]) else 1


if __name__ == "__main__":
    sys.exit(main())
