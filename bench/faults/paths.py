"""Client, router and server in three network namespaces, and what may become of the path between them. The
router forgets, drops, refuses or loses by rules of nftables."""

import contextlib
import os
import shutil
import subprocess
import time

from lib.namespaces import namespace
from soak import SamePort
from support import BUILD, PYTHON, die_with_parent, preloaded

from faults.cases import VALUES, Client, Missing, Row, Server, Wrong, as_plain, at_most, case

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
    """The namespaces: a client (number 0), the router, and servers (from 1) with a memcached each."""

    def __init__(self, stack, servers):
        for program in ("nft", "conntrack", "ip"):
            if not shutil.which(program):
                raise Missing(f"no such program: {program}")
        try:
            self.router, _ = stack.enter_context(namespace())
        except RuntimeError as reason:
            raise Missing(str(reason)) from None
        self.inside = []
        for number in range(servers + 1):
            inside, path = stack.enter_context(namespace())
            self.inside.append(inside)
            self.join(inside, path.split("/")[2], number)
        run(self.router, "sysctl", "-qw", "net.ipv4.ip_forward=1",
            "net.netfilter.nf_conntrack_tcp_loose=0")
        self.rule("add table ip t", "add chain ip t f { type filter hook forward priority 0; }",
                  "add chain ip t n { type nat hook prerouting priority -100; }",
                  # A rule of this kind makes the kernel follow connections.
                  f"add rule ip t f {FORGETS}")
        for number in range(1, servers + 1):
            server = subprocess.Popen(
                [*self.inside[number], "memcached", "-u", "nobody", "-l", address_of(number), "-p", str(PORT),
                 "-U", "0", "-t", "2"], stdin=subprocess.DEVNULL, preexec_fn=die_with_parent)
            stack.callback(server.wait)
            stack.callback(server.kill)
        for number in range(1, servers + 1):
            self.store(number)

    def join(self, inside, pid, number):
        """A wire from the router to a namespace; its number is in the addresses."""
        wire = f"w{number}"
        run(self.router, "ip", "link", "add", wire, "type", "veth", "peer", "name", "wire", "netns", pid)
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
    with network() as net, Client(library, f"{address_of(1)}:{PORT}", quiet, patience,
                                  net.inside[0]) as client:
        yield net, client


def forgotten(library, count, width, rule=FORGETS, rest=0, quiet="poll"):
    with joined(library, quiet) as (net, client):
        client.burst(IDLE)
        net.replace_rules(rule)
        net.forget()
        time.sleep(rest)
        return client.failed("batch", count, width)


case("forgotten-one-by-one", Row("failed, of 35", *at_most(1)))(lambda library: forgotten(library, 35, 1))
case("forgotten-four-at-a-time", Row("failed, of 48", *at_most(4)))(lambda library: forgotten(library, 48, 4))
case("forgotten-reset", Row("failed, of 35", *at_most(1)))(lambda library: forgotten(library, 35, 1, REFUSES))
# The client that waits in read() is one that does no work while it is quiet: only the kernel watches.
for way in ("poll", "read"):
    case(f"forgotten-later-{way}", Row(f"failed, of {IDLE}, 26 s later", *at_most(0)))(
        lambda library, way=way: forgotten(library, IDLE, IDLE, rest=26, quiet=way))


@case("forgotten-python-memcached", Row("requests in 40 s"), Row("network failures", *at_most(8)),
      Row("misses that shunning adds"))
def python_memcached(library):
    with network() as net:
        address = f"{address_of(1)}:{PORT}"
        environment = preloaded(library, address)
        preload = environment.pop("LD_PRELOAD", None)
        with subprocess.Popen([*net.inside[0], "env", *([f"LD_PRELOAD={preload}"] if preload else []),
                               PYTHON, os.path.join(HERE, "shunning.py"), address, "40"],
                              stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
                              preexec_fn=die_with_parent) as client:
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
        run(net.router, "sysctl", "-qw", "net.netfilter.nf_conntrack_tcp_timeout_established=5")
        failed = 0
        for _ in range(4):
            failed += client.failed("batch", 24, 24)
            time.sleep(8)
        return failed


def during(client, seconds, action):
    """Failures of 24 threads that ask for SECONDS, while ACTION is done after 2 seconds."""
    client.tell("load", 24, seconds * 1000)
    time.sleep(2)
    action()
    counts = client.hear()
    return counts.failed + counts.refused


def blackhole(library, seconds):
    with joined(library) as (net, client):
        def lose():
            net.replace_rules("drop")
            time.sleep(seconds)
            net.replace_rules(FORGETS)
        return during(client, 8, lose)


for gap in (0.5, 1.5, 3):
    case(f"blackhole-{gap}", Row("failed", *as_plain(more=6)))(lambda library, gap=gap: blackhole(library, gap))


@case("loss", Row("failed, of 3000", *as_plain(0.5, 10)), Row("opened connections"))
def loss(library):
    """1 % of the packets, each way."""
    with joined(library, patience=5000) as (net, client):
        net.replace_rules("numgen random mod 100 < 1 drop")
        before = net.statistic(1, "total_connections")
        failed = client.failed("batch", 3000, 8)
        # The one that asks the second time does not count.
        return failed, net.statistic(1, "total_connections") - before - 1


def flush_pools(net, client):
    usage = subprocess.run([MCPOOL, "help"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                           check=False).stdout
    if " flush" not in usage:
        raise Missing("no such command: mcpool flush")
    run(net.inside[0], "env", f"MCPOOL_STATS={client.directory.name}", MCPOOL, "flush")


def switched(library, flush):
    """Gets that the old server is asked from two seconds after `mcpool flush`, or after a lifetime of 15 s,
    since a virtual address was moved to another server."""
    with network(2) as net:
        net.rule(f"add rule ip t n ip daddr {VIRTUAL} dnat to {address_of(1)}")
        with Client(library, f"{VIRTUAL}:{PORT}", "poll", 1000, net.inside[0],
                    **({} if flush else {"MCPOOL_MAX_LIFETIME": "15s"})) as client:
            client.burst(IDLE)
            net.rule("flush chain ip t n", f"add rule ip t n ip daddr {VIRTUAL} dnat to {address_of(2)}")
            client.tell("every", 300 if flush else 1000, 20)
            if flush and library:
                flush_pools(net, client)
            time.sleep(2 if flush else 17)
            before = net.statistic(1, "cmd_get")
            client.hear()
            if net.statistic(2, "cmd_get") == 0:
                raise RuntimeError("the new server was never asked")
            return net.statistic(1, "cmd_get") - before


case("switched-flush", Row("asked of the old server, from 2 s after `mcpool flush`", *at_most(0)))(
    lambda library: switched(library, True))
case("switched-lifetime", Row("asked of the old server, from 2 s after a lifetime of 15 s", *at_most(0)))(
    lambda library: switched(library, False))


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
            time.sleep(10)
            server.go_on()
        return during(client, 15, stop)
