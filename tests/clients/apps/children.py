"""Makes children in one way while a connection is idle and another is in use.

Usage: children.py WAY. The parent must get right answers before and after, keep its idle
connection, and give a child none of its own. Prints how many connections the server saw opened by
parent and child together.
"""

import multiprocessing
import os
import subprocess
import sys

import memcache

from echo import value_of

SERVER = os.environ["APP_SERVER"]


def look_up(key):
    client = memcache.Client([SERVER], socket_timeout=10)
    value = client.get(key)
    client.disconnect_all()
    assert value == value_of(key), (key, value)


def opened():
    client = memcache.Client([SERVER])
    stats = client.get_stats()[0][1]
    client.disconnect_all()
    return int(stats["total_connections"])


def in_a_fork():
    child = os.fork()
    if child == 0:
        look_up("key-2")
        look_up("key-3")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0


def in_a_process(context):
    child = multiprocessing.get_context(context).Process(target=look_up, args=("key-2",))
    child.start()
    child.join()
    assert child.exitcode == 0


def with_adjacent_numbers():
    """close_range() of nothing fails, and the child closes every number one by one."""
    first, second = os.pipe()
    subprocess.run(["true"], pass_fds=(first, second), check=True)
    os.close(first)
    os.close(second)


def spawned():
    child = os.posix_spawn("/bin/true", ["true"], os.environ)
    assert os.waitpid(child, 0)[1] == 0


WAYS = {
    "run": lambda: subprocess.run(["true"], check=True),
    "run-keeping-fds": lambda: subprocess.run(["true"], close_fds=False, check=True),
    "run-with-preexec": lambda: subprocess.run(["true"], preexec_fn=lambda: None, check=True),
    "run-passing-fds": with_adjacent_numbers,
    "posix_spawn": spawned,
    "system": lambda: os.system("true"),
    "popen": lambda: os.popen("true").read(),
    "fork": in_a_fork,
    "multiprocessing-fork": lambda: in_a_process("fork"),
    "multiprocessing-spawn": lambda: in_a_process("spawn"),
}


def main():
    in_use = memcache.Client([SERVER], socket_timeout=10)
    for key in ("key-1", "key-2", "key-3"):
        in_use.set(key, value_of(key))
    look_up("key-1")
    before = opened()
    WAYS[sys.argv[1]]()
    assert in_use.get("key-1") == value_of("key-1")
    in_use.disconnect_all()
    look_up("key-2")
    look_up("key-3")
    print(opened() - before)


if __name__ == "__main__":
    main()
