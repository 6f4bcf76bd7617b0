"""The application rewritten to pymemcache's pool of connections."""

import os

from pymemcache.client.base import PooledClient

from echo import looked_up, wsgi

HOST, PORT = os.environ["APP_SERVER"].split(":")
client = PooledClient((HOST, int(PORT)), default_noreply=False)
app = wsgi(lambda key: looked_up(client, key))
