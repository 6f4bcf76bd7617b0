"""python-memcached with a client for every request, which is closed behind it."""

import os

import memcache

from echo import looked_up, wsgi


def look_up(key):
    client = memcache.Client([os.environ["APP_SERVER"]], socket_timeout=10)
    try:
        return looked_up(client, key)
    finally:
        client.disconnect_all()


app = wsgi(look_up)
