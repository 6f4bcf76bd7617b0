"""A client that is connected at import: under gunicorn --preload the connection is older than the
workers and each of them has it. Requests use clients of their own."""

import os

import memcache

from echo import looked_up, value_of, wsgi

early = memcache.Client([os.environ["APP_SERVER"]])
early.set("early", value_of("early"))


def lookup(key):
    client = memcache.Client([os.environ["APP_SERVER"]])
    try:
        return looked_up(client, key)
    finally:
        client.disconnect_all()


app = wsgi(lookup)
