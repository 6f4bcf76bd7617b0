"""A connection on which a client logged in, or that is encrypted, is never reused. Against memcacheds that
require ASCII authentication (-Y), SASL (-S) and TLS (-Z)."""

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
def folder():
    """For files that memcached can read as the user nobody."""
    with tempfile.TemporaryDirectory() as path:
        os.chmod(path, 0o755)
        yield path


def write(folder, name, text):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.write(text)
    os.chmod(path, 0o644)
    return path


def log_of(app, server, tmp_path):
    """What the log says of APP, which ends well."""
    log = tmp_path / "log"
    subprocess.run([PYTHON, f"{app}.py"], cwd=APPS, timeout=60, check=True,
                   env=preloaded(LIBRARY, server.address, APP_SERVER=server.address,
                                 MCPOOL_LOG=str(log), MCPOOL_LOG_LEVEL="debug"))
    return log.read_text()


def test_ascii_logins_stay_private(folder, tmp_path):
    with Memcached("-Y", write(folder, "users", "bob:secret\n")) as server:
        said = log_of("login", server, tmp_path)
    assert said.count("not kept: AUTH") == 5
    # A store and a login both answer STORED.
    assert said.count("not kept: MAYBE_AUTH") == 5
    assert said.count(": kept") == 0


def test_sasl_logins_stay_private(folder, tmp_path, monkeypatch):
    users = os.path.join(folder, "users")
    write(folder, "memcached.conf", "mech_list: plain\npwcheck_method: auxprop\n"
          f"auxprop_plugin: sasldb\nsasldb_path: {users}\n")
    subprocess.run(["saslpasswd2", "-p", "-c", "-a", "memcached", "-f", users, "bob"],
                   input="secret\n", text=True, check=True)
    os.chmod(users, 0o644)
    monkeypatch.setenv("SASL_CONF_PATH", folder)
    with Memcached("-S") as server:
        said = log_of("sasl", server, tmp_path)
    assert said.count("not kept: AUTH") == 10
    assert said.count(": kept") == 0


def test_encrypted_connections_stay_private(folder, tmp_path):
    certificate, key = (os.path.join(folder, name) for name in ("certificate", "key"))
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-keyout", key, "-out", certificate],
                   check=True, capture_output=True)
    os.chmod(key, 0o644)
    with Memcached("-Z", "-o", f"ssl_chain_cert={certificate},ssl_key={key}") as server:
        said = log_of("tls", server, tmp_path)
    assert said.count("not kept: TLS") == 5
    assert said.count(": kept") == 0
