"""The states of sockets, as ss shows them."""

import collections
import subprocess


def sockets(port):
    """How many sockets of each state have PORT at either end."""
    lines = subprocess.run(["ss", "-Htan", f"( sport = :{port} or dport = :{port} )"],
                           stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    return collections.Counter(line.split()[0] for line in lines)
