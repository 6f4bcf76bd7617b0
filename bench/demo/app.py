"""The application of the demo: python-memcached as its manual shows it, nothing else."""

import os
import time

import memcache

cache = memcache.Client([os.environ["DEMO_SERVER"]])
OTHER_WORK = float(os.environ.get("DEMO_OTHER_WORK", "0"))    # seconds


def app(environ, start_response):
    key = environ["QUERY_STRING"] or "greeting"
    value = cache.get(key)
    if value is None:
        value = f"value-of-{key}"
        cache.set(key, value)
    if OTHER_WORK:
        time.sleep(OTHER_WORK)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(value)))])
    return [value.encode()]
