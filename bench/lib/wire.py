"""Two network namespaces, joined by a forwarder that delays each packet. Needs root."""

import contextlib
import os
import subprocess

from lib import machine
from lib.worker import PROGRAMS, Turns, Worker
from namespaces import namespace

CLIENT, SERVER = "10.77.0.1", "10.77.0.2"


def set_up(inside, address, peer):
    for command in (["ip", "address", "add", address, "peer", peer, "dev", "wire"],
                    ["ip", "link", "set", "wire", "up"]):
        subprocess.run([*inside, *command], check=True)


@contextlib.contextmanager
def network():
    """(the forwarder, which is told delays; where the client runs; where the server runs)."""
    with namespace() as (client, client_path), namespace() as (server, server_path):
        command = machine.on_cpu(machine.OTHER_CPU, [os.path.join(PROGRAMS, "forwarder"),
                                                     client_path, server_path])
        with Worker(command, None, None) as forwarder:
            forwarder.hear()
            set_up(client, CLIENT, SERVER)
            set_up(server, SERVER, CLIENT)
            yield forwarder, client, server


def wait_until_it_answers(inside, address):
    with contextlib.suppress(RuntimeError), Turns(False, address, prefix=inside) as turns:
        turns.open(1)
        return True
    return False


def can_make_one():
    """Not without root, and not in every container."""
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError:
        return False
    return subprocess.run(["unshare", "--net", "true"], stderr=subprocess.DEVNULL,
                          check=False).returncode == 0
