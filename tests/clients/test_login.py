"""ASCII authentication (memcached -Y): a connection somebody logged in on is never handed on."""

import os
import subprocess
import sys
import tempfile

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
APPS = os.path.join(HERE, "apps")
sys.path.insert(0, os.path.join(HERE, ".."))
from support import LIBRARY, PYTHON, Memcached, preloaded


@pytest.fixture
def users():
    """A file memcached can read as nobody."""
    with tempfile.NamedTemporaryFile("w") as file:
        file.write("bob:secret\n")
        file.flush()
        os.chmod(file.name, 0o644)
        yield file.name


def test_logins_stay_private(users, tmp_path):
    log = tmp_path / "log"
    with Memcached("-Y", users) as server:
        subprocess.run([PYTHON, "login.py"], cwd=APPS, timeout=60, check=True,
                       env=preloaded(LIBRARY, server.address, APP_SERVER=server.address,
                                     MCPOOL_LOG=str(log), MCPOOL_LOG_LEVEL="debug"))
    said = log.read_text()
    assert said.count("not kept: MAYBE_AUTH") == 5
    assert said.count("not kept: AUTH") == 5
