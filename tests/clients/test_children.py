"""Children made in every way that Python has, while connections are idle and in use."""

import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
APPS = os.path.join(HERE, "apps")
sys.path.insert(0, os.path.join(HERE, ".."))
from support import LIBRARY, PYTHON, Memcached, preloaded

# Connections opened after the first ones, by parent and child together: none by a child that only
# runs a program, one by a child that looks something up.
WAYS = {
    "run": 0,
    "run-keeping-fds": 0,
    "run-with-preexec": 0,
    "run-passing-fds": 0,
    "posix_spawn": 0,
    "system": 0,
    "popen": 0,
    "fork": 1,
    "multiprocessing-fork": 1,
    "multiprocessing-spawn": 1,
}


@pytest.mark.parametrize("way", WAYS)
def test_parent_keeps_its_idle_connection(way):
    with Memcached() as server:
        result = subprocess.run([PYTHON, "children.py", way], cwd=APPS, timeout=60, check=True,
                                env=preloaded(LIBRARY, server.address, APP_SERVER=server.address),
                                stdout=subprocess.PIPE, text=True)
    assert int(result.stdout) == WAYS[way]
