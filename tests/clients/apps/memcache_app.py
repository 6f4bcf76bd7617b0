"""python-memcached as everybody uses it: one client for the module, threading.local inside."""

import os

import memcache

from echo import looked_up, wsgi

client = memcache.Client([os.environ["APP_SERVER"]])
app = wsgi(lambda key: looked_up(client, key))
