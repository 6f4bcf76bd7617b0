"""pymemcache with a client per request; APP_NOREPLY=1 leaves it at its default, noreply writes."""

import os

from pymemcache.client.base import Client

from echo import looked_up, wsgi

HOST, PORT = os.environ["APP_SERVER"].split(":")


def lookup(key):
    client = Client((HOST, int(PORT)), default_noreply=os.environ.get("APP_NOREPLY") == "1")
    try:
        return looked_up(client, key)
    finally:
        client.close()


app = wsgi(lookup)
