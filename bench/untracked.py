"""The untracked: what the shim costs servers and calls that have nothing to do with memcached.

nginx serving a small file under wrk, and redis-server under redis-benchmark: the server on one
processor, the load on the other, in pairs without and with the preload. Every run has a server of
its own: two that are the same differ by more than we look for, for as long as they live, by where
their memory happens to lie. Beside the rate stands the server's processor time for a request, which
others on the machine disturb less. Last, the instructions added to a call on an untracked
descriptor, by callgrind.
"""

import csv
import functools
import io
import os
import re
import subprocess
import tempfile

import instructions
from lib import machine
from lib.report import Report, number, quartiles
from lib.rounds import interleaved, ratios, spread
from lib.worker import PROGRAMS
from matrix import Running, nginx
from support import LIBRARY, Process, free_port, preloaded

PAIRS = 30
NGINX_SECONDS = 1
REDIS_REQUESTS = 30000
CONCURRENCY = 20
SECONDS = 400


def output(command):
    done = subprocess.run(machine.on_cpu(machine.OTHER_CPU, command), stdout=subprocess.PIPE,
                          text=True, check=True, timeout=60)
    return done.stdout


def wrk(port):
    """(requests per second, requests)."""
    text = output(["wrk", "-t1", f"-c{CONCURRENCY}", f"-d{NGINX_SECONDS}s",
                   f"http://127.0.0.1:{port}/file"])
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(text)
    return (float(re.search(r"^Requests/sec:\s+([\d.]+)", text, re.MULTILINE).group(1)),
            int(re.search(r"(\d+) requests in", text).group(1)))


def redis_benchmark(port):
    """(requests per second, requests)."""
    text = output(["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "--csv", "-t", "get",
                   "-c", str(CONCURRENCY), "-n", str(REDIS_REQUESTS)])
    return float(next(csv.DictReader(io.StringIO(text)))["rps"]), REDIS_REQUESTS


def nginx_command(directory, port):
    with open(os.path.join(directory, "file"), "w", encoding="ascii") as file:
        file.write("x" * 612)
    os.chmod(directory, 0o755)
    return nginx(Running(directory, port, ""), "server 127.0.0.1:1;", f"root {directory};")


def redis_command(directory, port):
    return ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir",
            directory]


def serve(command, load, library):
    """(requests per second, microseconds of processor time for one) of a server that lives for it.
    """
    port = free_port()
    with tempfile.TemporaryDirectory() as directory, \
            Process(machine.on_cpu(machine.ONE_CPU, command(directory, port)), port,
                    preloaded(library, "11211")) as server:
        pid = server.process.pid
        before = machine.run_seconds(pid)
        rate, requests = load(port)
        return rate, (machine.run_seconds(pid) - before) / requests * 1e6


def main():
    with machine.bounded(SECONDS), Report("untracked", "What is not memcached") as report:
        rows = []
        report.say(f"{PAIRS} pairs without and with the preload, the order turned each time, the "
                   "server on one processor and the load on the other; ratio of what is measured "
                   "with the preload to the same without, in the same pair.")
        for name, server, command, load in (
                ("nginx", "nginx, a file of 612 bytes, wrk", nginx_command, wrk),
                ("redis", "redis-server, GET, redis-benchmark", redis_command, redis_benchmark)):
            runs = interleaved(PAIRS, {
                "without": functools.partial(serve, command, load, None),
                "with": functools.partial(serve, command, load, LIBRARY)})
            rates = {kind: [rate for rate, _ in pairs] for kind, pairs in runs.items()}
            times = {kind: [taken for _, taken in pairs] for kind, pairs in runs.items()}
            report.raw(f"untracked-{name}", ["pair", "rate without", "rate with", "µs without",
                                             "µs with"],
                       zip(range(PAIRS), *rates.values(), *times.values()))
            for what, values, unit, goal in (
                    ("requests per second", rates, "/s", "≥ 0.99"),
                    ("processor time for a request", times, " µs", "≤ 1.01")):
                ratio = spread(ratios(values["with"], values["without"]))
                report.headline(f"{name}, {what}: with the preload to without", ratio, goal, 3)
                rows.append([f"{server}: {what}", *quartiles(ratio, 3),
                             number(spread(values["without"]).median) + unit])
        report.table(["server", "ratio", "quartiles", "without"], rows)
        added = instructions.added(LIBRARY, os.path.join(PROGRAMS, "instructions"))
        report.raw("instructions", ["function", "instructions added"], added)
        report.say("Instructions added to a call on a descriptor that is no connection of ours, by "
                   f"callgrind; a test fails above {instructions.LIMIT}.")
        report.table(["call", "instructions"], [[f"`{name}`", f"{more:.1f}"]
                                                for name, more in added])


if __name__ == "__main__":
    main()
