"""What `mcpool stat` costs a host with many processes: time of the processor, user and system. The processes
are beside it with one directory of counters, or each in a container of its own."""

import contextlib
import json
import os
import subprocess
import tempfile
import time

from lib import machine
from lib.report import Report, quartiles
from lib.rounds import spread
from lib.worker import TURNS, Worker
from support import BUILD, LIBRARY, Memcached, preloaded

PROCESSES = 200
RUNS = 20
GOAL = 100
SECONDS = 120
COMMAND = [os.path.join(BUILD, "mcpool"), "stat"]

# A mount, a PID and a UTS namespace, with a directory of counters and a host name.
CONTAINER = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--uts", "sh", "-ec",
             'mount --make-rprivate /; mount -t tmpfs none /run; mkdir -m 1777 /run/mcpool; exec "$@"', "sh"]


def environment(**more):
    """Without a runtime directory or other variables of ours."""
    return {name: value for name, value in preloaded(None, None, **more).items() if name != "XDG_RUNTIME_DIR"}


def shown(variables):
    done = subprocess.run([*COMMAND, "--json"], env=variables, stdout=subprocess.PIPE, check=False)
    return len(json.loads(done.stdout)["processes"])


def cost(variables):
    """Milliseconds that the processor has for one run."""
    pid = os.posix_spawn(COMMAND[0], COMMAND, variables,
                         file_actions=[(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_WRONLY, 0) for fd in (1, 2)])
    used = os.wait4(pid, 0)[2]
    return (used.ru_utime + used.ru_stime) * 1000


@contextlib.contextmanager
def processes(server, prefix, **variables):
    """PROCESSES of them, each with a connection that was reused."""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Worker([*prefix, TURNS, server.address], LIBRARY, server.address, **variables))
                   for _ in range(PROCESSES)]
        for _ in range(2):
            for worker in workers:
                worker.tell("cycle", 2)
            for worker in workers:
                worker.hear()
            time.sleep(1.1)  # The counters are written once a second.
        yield


def measure(name, variables, rows):
    there = shown(variables)
    times = [cost(variables) for _ in range(RUNS)]
    rows[name] = (there, times)
    return there


def main():
    machine.want_descriptors(8 * PROCESSES)
    with machine.bounded(SECONDS), Report("observe", "Looking at 200 processes") as report, \
         Memcached("-c", str(8 * PROCESSES)) as server, tempfile.TemporaryDirectory() as folder:
        rows = {}
        before = measure("none", environment(), rows)
        others = sum(name.isdigit() for name in os.listdir("/proc"))
        with processes(server, [], MCPOOL_STATS=folder):
            assert measure("beside the command", environment(MCPOOL_STATS=folder), rows) == PROCESSES
        try:
            with processes(server, CONTAINER):
                assert measure("each in a container", environment(), rows) == before + PROCESSES
        except RuntimeError:
            report.say("No namespaces can be made here, so the containers are missing.")
        report.raw_rounds("observe", {name: times for name, (_, times) in rows.items()})
        report.say(f"`mcpool stat`, user and system time, {RUNS} runs. The machine has {others} other processes.")
        report.table(["processes", "shown", "ms", "quartiles", "goal"],
                     [[name, there, *quartiles(spread(times)), f"< {GOAL}"]
                      for name, (there, times) in rows.items()])


if __name__ == "__main__":
    main()
