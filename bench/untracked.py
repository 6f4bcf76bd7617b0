"""The untracked: what the shim costs servers and calls that have nothing to do with memcached.

nginx serving a small file under wrk, and redis-server under redis-benchmark: the server on one
processor, the load on the other, in pairs without and with the preload; and the instructions added
to a call on an untracked descriptor, by callgrind.
"""

import contextlib
import csv
import io
import os
import re
import subprocess
import tempfile

import instructions
from lib import machine
from lib.report import Report, quartiles
from lib.rounds import interleaved, ratios, spread
from lib.worker import PROGRAMS
from matrix import Running, nginx
from support import LIBRARY, Process, free_port, preloaded

PAIRS = 20
NGINX_SECONDS = 1
REDIS_REQUESTS = 100000
CONCURRENCY = 20
SECONDS = 300


def output(command):
    done = subprocess.run(machine.on_cpu(machine.OTHER_CPU, command), stdout=subprocess.PIPE,
                          text=True, check=True, timeout=60)
    return done.stdout


def wrk(port):
    """Requests per second."""
    text = output(["wrk", "-t1", f"-c{CONCURRENCY}", f"-d{NGINX_SECONDS}s",
                   f"http://127.0.0.1:{port}/file"])
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(text)
    return float(re.search(r"^Requests/sec:\s+([\d.]+)", text, re.MULTILINE).group(1))


def redis_benchmark(port):
    """Requests per second."""
    text = output(["redis-benchmark", "-h", "127.0.0.1", "-p", str(port), "--csv", "-t", "get",
                   "-c", str(CONCURRENCY), "-n", str(REDIS_REQUESTS)])
    return float(next(csv.DictReader(io.StringIO(text)))["rps"])


def nginx_command(directory, port):
    with open(os.path.join(directory, "file"), "w", encoding="ascii") as file:
        file.write("x" * 612)
    os.chmod(directory, 0o755)
    return nginx(Running(directory, port, ""), "server 127.0.0.1:1;", f"root {directory};")


def redis_command(directory, port):
    return ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir",
            directory]


def pairs(command, load):
    """Requests per second of a server, name -> one for each pair."""
    with contextlib.ExitStack() as stack:
        kinds = {}
        for name, library in (("without", None), ("with", LIBRARY)):
            port = free_port()
            directory = stack.enter_context(tempfile.TemporaryDirectory())
            stack.enter_context(Process(machine.on_cpu(machine.ONE_CPU, command(directory, port)),
                                        port, preloaded(library, "11211")))
            kinds[name] = lambda port=port: load(port)
        interleaved(1, kinds)
        return interleaved(PAIRS, kinds)


def main():
    with machine.bounded(SECONDS), Report("untracked", "What is not memcached") as report:
        rows = []
        report.say(f"{PAIRS} pairs without and with the preload, the order turned each time, the "
                   "server on one processor and the load on the other; requests per second with the "
                   "preload to those without, of the same pair.")
        for name, server, command, load in (
                ("nginx", "nginx, a file of 612 bytes, wrk", nginx_command, wrk),
                ("redis", "redis-server, GET, redis-benchmark", redis_command, redis_benchmark)):
            rates = pairs(command, load)
            report.raw_rounds(f"untracked-{name}", rates)
            rows.append([server, *quartiles(spread(ratios(rates["with"], rates["without"])), 3),
                         f"{spread(rates['without']).median:,.0f}"])
        report.table(["server", "ratio", "quartiles", "requests/s without"], rows)
        added = instructions.added(LIBRARY, os.path.join(PROGRAMS, "instructions"))
        report.raw("instructions", ["function", "instructions added"], added)
        report.say("Instructions added to a call on a descriptor that is no connection of ours, by "
                   f"callgrind; a test fails above {instructions.LIMIT}.")
        report.table(["call", "instructions"], [[f"`{name}`", f"{more:.1f}"]
                                                for name, more in added])


if __name__ == "__main__":
    main()
