"""fresh_memcache_app, whose requests hold their connection for a moment after the answer: so many at a time are as
many connections."""

import os
import time

import memcache

from echo import looked_up, wsgi

HOLD = 0.1


def look_up(key):
    client = memcache.Client([os.environ["APP_SERVER"]], socket_timeout=10)
    try:
        value = looked_up(client, key)
        time.sleep(HOLD)
        return value
    finally:
        client.disconnect_all()


app = wsgi(look_up)
