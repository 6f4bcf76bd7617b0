"""Runs the tracker against a memcached of its own.

Usage: run.py PROGRAM [SEQUENCES [SECONDS]], 0 seconds for no end but that. The last line counts like a test's.
"""

import os
import subprocess
import sys

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from support import Memcached


def main():
    sequences, seconds = (sys.argv[2:4] + ["100000", "0"][len(sys.argv) - 2:])[:2]
    with Memcached() as server:
        code = subprocess.run([sys.argv[1], "127.0.0.1", str(server.port), "--sequences", sequences,
                               "--seconds", seconds], check=False).returncode
    print("1 passed, 0 failed" if code == 0 else "FAILED differential\n0 passed, 1 failed")
    return code


if __name__ == "__main__":
    sys.exit(main())
