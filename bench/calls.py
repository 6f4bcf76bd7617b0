"""What each system call of a hit costs by itself. Which there are is a test:
tests/interop/test_system_calls.py."""

import os
import subprocess

from lib import machine
from lib.report import Report
from lib.worker import PROGRAMS

SECONDS = 60

# Where in the cycle each one is made, and what for.
PLACES = {
    "socket() and close() of what is thrown away": ("", "what a spare saves"),
    "fcntl(F_DUPFD) and close()": ("socket() and close()", "the program's own fd"),
    "getsockopt(TCP_INFO)": ("connect()", "the kernel's byte counters"),
    "dup3()": ("connect()", "puts the connection at the fd"),
    "rt_sigprocmask()": ("connect() and send()", "can the program's memory be read, unless that is known"),
}


def main():
    machine.stay_on(machine.ONE_CPU)
    with machine.bounded(SECONDS), Report("calls", "The system calls of a hit") as report:
        told = subprocess.run([os.path.join(PROGRAMS, "calls")], stdout=subprocess.PIPE, text=True,
                              check=True).stdout
        costs = dict(line.split("\t") for line in told.splitlines())
        report.table(["system call", "in", "for", "ns"],
                     [[name, *PLACES[name], cost] for name, cost in costs.items()])


if __name__ == "__main__":
    main()
