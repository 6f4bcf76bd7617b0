"""Counts the look-ups in the fd map. Usage: run.py LIBRARY PROGRAM."""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from support import Memcached, free_port, preloaded


def main():
    library, program = (os.path.abspath(path) for path in sys.argv[1:3])
    with Memcached() as server:
        unused = free_port()
        servers = f"{server.address},127.0.0.1:{unused}"
        return subprocess.run([program, str(server.port), str(unused)],
                              env=preloaded(library, servers), check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
