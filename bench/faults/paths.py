"""A router and servers in network namespaces of their own beside the case's, and what may become of the path
to them. The router forgets, drops, refuses or loses by rules of nftables."""

import contextlib
import os
import shutil
import signal
import subprocess
import time

from lib.cases import PACE, VALUES, Missing, Row, Server, Wrong, as_plain, at_most, rest
from namespaces import namespace
from soak import SamePort
from support import BUILD, PYTHON, die_with_parent, preloaded

from faults.cases import Client, case

HERE = os.path.dirname(os.path.abspath(__file__))
MCPOOL = os.path.abspath(os.path.join(BUILD, "mcpool"))
PORT = 11211
VIRTUAL = "10.78.9.9"
IDLE = 32

# What the router does not know it drops, as a firewall does, or refuses.
FORGETS = "ct state invalid drop"
REFUSES = "ct state invalid reject with tcp reset"

STORE = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as fd:
    answers = fd.makefile("rb")
    for key in sys.argv[3:]:
        value = "value-of-" + key
        fd.sendall(f"set {key} 0 0 {len(value)}\\r\\n{value}\\r\\n".encode())
        assert answers.readline() == b"STORED\\r\\n"
"""
STATISTIC = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 5) as fd:
    fd.sendall(b"stats\\r\\n")
    text = ""
    while not text.endswith("END\\r\\n"):
        text += fd.recv(65536).decode()
print(text.split(f"STAT {sys.argv[3]} ")[1].split()[0])
"""


def address_of(number):
    return f"10.78.{number}.2"


def run(inside, *command):
    return subprocess.run([*inside, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=True).stdout


class Network:
    """The namespaces: the case's own (number 0), the router, and servers (from 1) with a memcached each."""

    def __init__(self, stack, servers):
        for program in ("nft", "conntrack", "ip"):
            if not shutil.which(program):
                raise Missing(f"no such program: {program}")
        self.router, _ = stack.enter_context(namespace())
        self.inside = [()]
        self.join((), os.getpid(), 0)
        for number in range(1, servers + 1):
            inside, path = stack.enter_context(namespace())
            self.inside.append(inside)
            self.join(inside, path.split("/")[2], number)
        self.configure("net.ipv4.ip_forward=1", "net.netfilter.nf_conntrack_tcp_loose=0")
        self.rule("add table ip t", "add chain ip t f { type filter hook forward priority 0; }",
                  "add chain ip t n { type nat hook prerouting priority -100; }",
                  # A rule of this kind makes the kernel follow connections.
                  f"add rule ip t f {FORGETS}")
        self.servers = {}
        for number in range(1, servers + 1):
            self.start(number)
            stack.callback(self.kill, number)
        for number in range(1, servers + 1):
            self.store(number)

    def start(self, number):
        self.servers[number] = subprocess.Popen(
            [*self.inside[number], "memcached", "-u", "nobody", "-l", address_of(number), "-p", str(PORT),
             "-U", "0", "-t", "2"], stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)

    def kill(self, number):
        self.servers[number].kill()
        self.servers[number].wait()

    @contextlib.contextmanager
    def stopped(self, number):
        self.servers[number].send_signal(signal.SIGSTOP)
        yield
        self.servers[number].send_signal(signal.SIGCONT)

    def join(self, inside, pid, number):
        """A wire from the router to a namespace; its number is in the addresses."""
        wire = f"w{number}"
        run(self.router, "ip", "link", "add", wire, "type", "veth", "peer", "name", "wire", "netns", str(pid))
        run(self.router, "ip", "address", "add", f"10.78.{number}.1/24", "dev", wire)
        run(self.router, "ip", "link", "set", wire, "up")
        run(inside, "ip", "address", "add", f"{address_of(number)}/24", "dev", "wire")
        run(inside, "ip", "link", "set", "wire", "up")
        run(inside, "ip", "link", "set", "lo", "up")
        run(inside, "ip", "route", "add", "default", "via", f"10.78.{number}.1")

    def store(self, number):
        """Puts the values into a server, once it listens."""
        for _ in range(100):
            with contextlib.suppress(subprocess.CalledProcessError):
                run(self.inside[number], PYTHON, "-c", STORE, address_of(number), str(PORT), *VALUES)
                return
            time.sleep(0.1)
        raise RuntimeError("memcached does not listen")

    def statistic(self, number, name):
        return int(run(self.inside[number], PYTHON, "-c", STATISTIC, address_of(number), str(PORT), name))

    def configure(self, *settings):
        """Changes the router's kernel."""
        run(self.router, "sysctl", "-qw", *settings)

    def rule(self, *rules):
        run(self.router, "nft", "; ".join(rules))

    def replace_rules(self, *rules):
        self.rule("flush chain ip t f", *(f"add rule ip t f {rule}" for rule in rules))

    def forget(self):
        """The router knows none of the connections any more."""
        run(self.router, "conntrack", "-F")


@contextlib.contextmanager
def network(servers=1):
    with contextlib.ExitStack() as stack:
        yield Network(stack, servers)


@contextlib.contextmanager
def joined(library, quiet="poll", patience=1000):
    with network() as net, Client(library, f"{address_of(1)}:{PORT}", quiet, patience) as client:
        yield net, client


def forgotten(library, count, width, rule=FORGETS, later=0, quiet="poll"):
    with joined(library, quiet) as (net, client):
        client.burst(IDLE)
        net.replace_rules(rule)
        net.forget()
        rest(later)
        return client.failed("batch", count, width)


case("forgotten-one-by-one", Row("failed, of 35", *at_most(1)))(lambda library: forgotten(library, 35, 1))
case("forgotten-four-at-a-time", Row("failed, of 48", *at_most(4)))(lambda library: forgotten(library, 48, 4))
case("forgotten-reset", Row("failed, of 35", *at_most(1)))(lambda library: forgotten(library, 35, 1, REFUSES))
# The client that waits in read() is one that does no work while it is quiet: only the kernel watches.
for way in ("poll", "read"):
    case(f"forgotten-later-{way}", Row(f"failed, of {IDLE}, 26 s later", *at_most(0)))(
        lambda library, way=way: forgotten(library, IDLE, IDLE, later=26, quiet=way))


@case("forgotten-python-memcached", Row("requests in 40 s"), Row("network failures", *at_most(8)),
      Row("misses that shunning adds"))
def python_memcached(library):
    with network() as net:
        address = f"{address_of(1)}:{PORT}"
        with subprocess.Popen([PYTHON, os.path.join(HERE, "shunning.py"), address, str(40 * PACE),
                               str(PACE)],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              env=preloaded(library, address), preexec_fn=die_with_parent) as client:
            client.stdout.readline()
            net.forget()
            client.stdin.write("\n")
            client.stdin.flush()
            requests, failures, misses, wrong = map(int, client.stdout.readline().split())
        if wrong:
            raise Wrong(f"{wrong} wrong answers")
        return requests, failures, misses


@case("firewall", Row("failed, of 96", *at_most(24)))
def firewall(library):
    with joined(library) as (net, client):
        limit = max(1, round(5 * PACE))
        net.configure(f"net.netfilter.nf_conntrack_tcp_timeout_established={limit}")
        failed = 0
        for _ in range(4):
            failed += client.failed("batch", 24, 24)
            time.sleep(1.6 * limit)
        return failed


def during(client, seconds, action):
    """Failures of 24 threads that ask for SECONDS, while ACTION is done after 2 seconds."""
    client.tell("load", 24, int(seconds * 1000 * PACE))
    rest(2)
    action()
    counts = client.hear()
    return counts.failed + counts.refused


def blackhole(library, seconds):
    with joined(library) as (net, client):
        def lose():
            net.replace_rules("drop")
            rest(seconds)
            net.replace_rules(FORGETS)
        return during(client, 8, lose)


for gap in (0.5, 1.5, 3):
    # One request more or less for each thread is chance.
    case(f"blackhole-{gap}", Row("failed", *as_plain(more=24)))(lambda library, gap=gap: blackhole(library, gap))


# Today's release opens 8 of them; twice that is allowed.
@case("loss", Row("failed, of 3000", *as_plain(0.5, 10)), Row("opened connections", *at_most(16)))
def loss(library):
    """1 % of the packets, each way."""
    with joined(library, patience=5000) as (net, client):
        net.replace_rules("numgen random mod 100 < 1 drop")
        before = net.statistic(1, "total_connections")
        failed = client.failed("batch", int(3000 * PACE), 8)
        # The one that asks the second time does not count.
        return failed, net.statistic(1, "total_connections") - before - 1


def flush_pools(client):
    usage = subprocess.run([MCPOOL, "help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           check=False).stdout
    if " flush" not in usage:
        raise Missing("no such command: mcpool flush")
    run(("env", f"MCPOOL_STATS={client.directory.name}"), MCPOOL, "flush", str(client.process.pid))


def switched(library, seconds, flush=False, **settings):
    """Gets that the old server is asked from SECONDS after a virtual address was moved to another server."""
    with network(2) as net:
        net.rule(f"add rule ip t n ip daddr {VIRTUAL} dnat to {address_of(1)}")
        with Client(library, f"{VIRTUAL}:{PORT}", **settings) as client:
            client.burst(IDLE)
            net.rule("flush chain ip t n", f"add rule ip t n ip daddr {VIRTUAL} dnat to {address_of(2)}")
            client.tell("load", 1, int((seconds * PACE + 4) * 1000))
            if flush and library:
                flush_pools(client)
            rest(seconds)
            before = net.statistic(1, "cmd_get")
            client.hear()
            asked = net.statistic(1, "cmd_get") - before
            if asked + net.statistic(2, "cmd_get") == 0:
                raise RuntimeError("no server was asked")
            return asked


case("switched-flush", Row("asked of the old server, from 2 s after `mcpool flush`", *at_most(0)))(
    lambda library: switched(library, 2, flush=True))
case("switched-lifetime", Row("asked of the old server, from 2 s after a lifetime of 15 s", *at_most(0)))(
    lambda library: switched(library, 17, MCPOOL_MAX_LIFETIME=f"{int(15000 * PACE)}ms"))
case("switched-default", Row("asked of the old server, from 5 min and 2 s on", *at_most(0)), seconds=400)(
    lambda library: switched(library, 302 if library else 17))


@case("killed-and-started", Row("failed, of 640", *as_plain()))
def killed_and_started(library):
    with SamePort() as server, Client(library, server.address) as client:
        failed = 0
        for _ in range(20):
            client.burst(IDLE)
            server.start_again()
            failed += client.failed("batch", IDLE, IDLE)
        return failed


@case("stopped-10-s", Row("failed", *as_plain(0.1, 24)))
def stopped(library):
    with Server() as server, Client(library, server.address) as client:
        def stop():
            server.pause()
            rest(10)
            server.go_on()
        return during(client, 15, stop)
