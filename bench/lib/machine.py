"""The machine: its processors and limits, what processes use of it, and a time limit for everything."""

import contextlib
import os
import resource
import signal
import subprocess

ONE_CPU = max(os.sched_getaffinity(0))
OTHER_CPU = min(os.sched_getaffinity(0))


class OutOfTime(Exception):
    """A subject took longer than its limit."""


@contextlib.contextmanager
def bounded(seconds):
    """Ends what runs inside, by an exception so that it tidies up."""
    def give_up(*_):
        raise OutOfTime(f"not done after {seconds} seconds")

    signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


def on_cpu(cpu, command):
    """COMMAND, to run on this processor alone."""
    return ["taskset", "-c", str(cpu), *command]


def stay_on(cpu):
    """This process and its children, on one processor. Otherwise the scheduler's choice of processors decides
    the result."""
    os.sched_setaffinity(0, {cpu})


def want_descriptors(count):
    """Raises the limit of open files as far as COUNT; returns what it is then."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, count), most))
    return min(most, count)


def cpu_seconds(pid):
    """User and system time of all threads of PID."""
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def run_seconds(pid):
    """How long PID's first thread and its children's have run, by the scheduler's finer count."""
    with open(f"/proc/{pid}/schedstat", encoding="utf-8") as file:
        total = int(file.read().split()[0]) / 1e9
    with open(f"/proc/{pid}/task/{pid}/children", encoding="utf-8") as file:
        return total + sum(run_seconds(int(child)) for child in file.read().split())


def resident(pid):
    """Resident memory of PID in bytes."""
    with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def kernel_memory():
    """The kernel's memory for objects such as sockets, in bytes."""
    with open("/proc/meminfo", encoding="utf-8") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Slab:"))


def time_wait(port):
    """How many sockets in TIME_WAIT have PORT at either end."""
    found = subprocess.run(["ss", "-Htan", "state", "time-wait",
                            f"( sport = :{port} or dport = :{port} )"],
                           stdout=subprocess.PIPE, text=True, check=True)
    return len(found.stdout.splitlines())
