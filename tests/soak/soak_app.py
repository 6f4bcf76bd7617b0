"""python-memcached under gunicorn, and a program run now and then while connections idle."""

import itertools
import os
import subprocess
import sys

import memcache

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../clients/apps"))
from echo import looked_up, wsgi

# A client that soon retries a server that was away.
client = memcache.Client([os.environ["APP_SERVER"]], dead_retry=0.1)
requests = itertools.count()


def answer(key):
    if next(requests) % 50 == 0:
        subprocess.run(["true"], check=True)
    return looked_up(client, key)


app = wsgi(answer)
