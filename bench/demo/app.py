"""The application of the demo: python-memcached as its manual shows it, nothing else."""

import memcache

import os

cache = memcache.Client([os.environ["DEMO_SERVER"]])


def app(environ, start_response):
    value = cache.get("greeting")
    if value is None:
        value = "hello, world"
        cache.set("greeting", value)
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(value)))])
    return [value.encode()]
