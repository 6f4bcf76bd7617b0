"""Run in a machine's network for machine.py: visits its application, asks its memcached.

Usage: visitors.py load REQUESTS CONCURRENCY FIRST_KEY | connections
"""

import json
import os
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from support import listens, load, stats_of

APPLICATION = 8000
MEMCACHED = 11211


def wait_for_application():
    deadline = time.monotonic() + 20
    while not listens(APPLICATION):
        if time.monotonic() > deadline:
            raise RuntimeError("the application does not listen")
        time.sleep(0.05)


def main():
    what, *arguments = sys.argv[1:]
    if what == "load":
        wait_for_application()
        print(json.dumps(load(APPLICATION, *map(int, arguments))))
    else:
        print(stats_of(MEMCACHED)["total_connections"])


main()
