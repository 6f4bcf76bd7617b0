"""What the tests of the command share."""

import os
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from observed import Host
from support import Memcached


@pytest.fixture(scope="session")
def server():
    with Memcached() as running:
        yield running


@pytest.fixture
def host(server, tmp_path):
    (tmp_path / "stats").mkdir(mode=0o1777)
    made = Host(server, tmp_path / "stats")
    yield made
    made.close()
