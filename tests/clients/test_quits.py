"""A client that has sent quit and read to the end of file knows that its writes are done."""

import os
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
APPS = os.path.join(HERE, "apps")
sys.path.insert(0, os.path.join(HERE, ".."))
from support import LIBRARY, PYTHON, Memcached, preloaded

ROUNDS = 40


@pytest.mark.parametrize("protocol", ("text", "binary"))
def test_pylibmc_loses_no_last_write(protocol):
    if subprocess.run([PYTHON, "-c", "import pylibmc"], capture_output=True).returncode != 0:
        pytest.skip("not installed: python3-pylibmc")
    with Memcached() as server:
        done = subprocess.run([PYTHON, os.path.join(APPS, "last_writes.py"), protocol, str(ROUNDS)],
                              env=preloaded(LIBRARY, server.address, APP_SERVER=server.address),
                              timeout=120, check=True, capture_output=True, text=True)
    assert int(done.stdout) == 0, f"{done.stdout.strip()} of {ROUNDS} rounds lost the last write"
