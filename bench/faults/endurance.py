"""Real servers under load for a quarter of an hour, or FAULTS_SECONDS, while all faults befall the path,
memcached and the workers in turn."""

import concurrent.futures
import contextlib
import os
import random
import signal
import tempfile
import time

from lib.cases import Row, Wrong, at_most, rest
from matrix import Running, nginx_before_fpm, php_fpm
from soak import HERE as SOAK
from soak import MORE_DESCRIPTORS, MORE_MEMORY, Scenario, children
from support import PYTHON, Process, free_port, preloaded

from faults.cases import case
from faults.paths import FORGETS, PORT, REFUSES, address_of, network

WHOLE = 900
# Shorter ones do not say whether memory grows, because the programs are not warm before.
WARM = 600
SECONDS = int(os.environ.get("FAULTS_SECONDS", WHOLE))
CONCURRENCY = 2
# For how many seconds a program may still fail after a fault has ended.
AFTERMATH = 3
# Between two faults.
QUIET = 6


class Gentle(Scenario):
    """The soak's load with pauses, so that the processors are not what is tested."""
    pause = 0.01

    def load(self, goes_on, memcached_is_away):
        while goes_on():
            self.outcomes[self.ask(f"key-{random.randrange(1000)}", memcached_is_away)] += 1
            time.sleep(self.pause)


@contextlib.contextmanager
def ruled(net, *rules):
    net.replace_rules(*rules)
    yield
    net.replace_rules(FORGETS)


def faults(net):
    """{name: what brings it about for a moment}"""
    def lasting(seconds, *rules):
        with ruled(net, *rules):
            rest(seconds)

    def forget(rule):
        with ruled(net, rule):
            net.forget()
            rest(2)

    def kill():
        net.kill(1)
        rest(0.5)
        net.start(1)
        net.store(1)

    def stop():
        with net.stopped(1):
            rest(3)

    def forget_idle():
        """The firewall's limit, for a time."""
        limit = "net.netfilter.nf_conntrack_tcp_timeout_established"
        net.configure(f"{limit}=1")
        rest(10)
        net.configure(f"{limit}=432000")

    return {"killed": kill, "stopped": stop, "blackhole": lambda: lasting(2, "drop"),
            "loss": lambda: lasting(5, "numgen random mod 100 < 1 drop"),
            "forgotten": lambda: forget(FORGETS), "reset": lambda: forget(REFUSES),
            "firewall": forget_idle}


def endure(net, scenarios, recycle, seconds):
    """Loads all servers for SECONDS; returns how many faults there were."""
    end = time.monotonic() + seconds
    calm_from = [0]
    done = []

    def goes_on():
        return time.monotonic() < end

    def is_disturbed():
        return time.monotonic() < calm_from[0]

    def disturb():
        while goes_on():
            for name, fault in faults(net).items():
                rest(QUIET)
                if not goes_on():
                    return
                calm_from[0] = float("inf")
                fault()
                calm_from[0] = time.monotonic() + AFTERMATH
                done.append(name)
                recycle()

    with concurrent.futures.ThreadPoolExecutor(1 + CONCURRENCY * len(scenarios)) as threads:
        waiting = [threads.submit(disturb)]
        waiting += [threads.submit(scenario.load, goes_on, is_disturbed)
                    for scenario in scenarios for _ in range(CONCURRENCY)]
        while goes_on():
            time.sleep(min(1, seconds / 50))
            for scenario in scenarios:
                scenario.sample()
        for one in waiting:
            one.result()
    return len(done)


@case("endurance", Row(f"faults in {SECONDS} s"), Row("right answers"), Row("failed in a fault or 3 s after it"),
      Row("failed at other times"), Row("fds more", *at_most(MORE_DESCRIPTORS)),
      Row("KiB more", *(at_most(MORE_MEMORY) if SECONDS >= WARM else ())), seconds=SECONDS + 100,
      columns=("shim",))
def endurance(library):
    with contextlib.ExitStack() as stack:
        net = stack.enter_context(network())
        address = f"{address_of(1)}:{PORT}"
        environment = preloaded(library, address, APP_SERVER=address, APP_CLIENT="text")
        directory = stack.enter_context(tempfile.TemporaryDirectory())

        def serve(make, **more):
            port = free_port()
            return stack.enter_context(Process(make(Running(directory, port, address, **more)), port, environment,
                                               cwd=SOAK))

        gunicorn = serve(lambda running: [PYTHON, "-m", "gunicorn", "-k", "gevent", "-w", "2", "-b",
                                          f"127.0.0.1:{running.port}", "soak_app:app"])
        fpm = serve(php_fpm)
        front = serve(nginx_before_fpm, behind=fpm.port)
        node = serve(lambda running: ["node", "--expose-gc", os.path.join(SOAK, "page.js"), str(running.port)])
        time.sleep(1)
        lasting = min(children(gunicorn.process.pid))

        def recycle():
            for pid in set(children(gunicorn.process.pid)) - {lasting}:
                os.kill(pid, signal.SIGTERM)

        scenarios = [Gentle("gunicorn", gunicorn.port, [lasting]),
                     Gentle("php-fpm", front.port, children(fpm.process.pid)),
                     Gentle("node", node.port, [node.process.pid])]
        count = endure(net, scenarios, recycle, SECONDS)
    total = sum((scenario.outcomes for scenario in scenarios), start=type(scenarios[0].outcomes)())
    if total["wrong"]:
        raise Wrong(f"{total['wrong']} wrong answers")
    growth = [scenario.growth() for scenario in scenarios]
    return (count, total["right"], total["excused"], total["failed"], int(max(fds for fds, _ in growth)),
            int(max(memory for _, memory in growth)))
