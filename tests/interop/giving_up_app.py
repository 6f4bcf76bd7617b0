"""An application whose requests give up at random moments, each with a client of its own. It answers /?KEY with the
value, with "missing", or with "gave up"."""

from gevent import monkey

monkey.patch_all()

import os
import random

import gevent
import memcache

SERVER = os.environ["APP_SERVER"]


def look_up(key):
    client = memcache.Client([SERVER], socket_timeout=20, dead_retry=0)
    try:
        value = client.get(key)
    finally:
        client.disconnect_all()
    return value.decode() if isinstance(value, bytes) else value or "missing"


def answer(key):
    if random.random() < 0.3:
        with gevent.Timeout(random.uniform(0.001, 0.05), False):
            return look_up(key)
        return "gave up"
    return look_up(key)


def app(environ, start_response):
    body = answer(environ["QUERY_STRING"]).encode()
    start_response("200 OK", [("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
    return [body]
