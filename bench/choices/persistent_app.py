"""The application rewritten to APP_CONNECTIONS connections that stay open, with python-memcached.

Its clients are thread-local, which is what makes one for every greenlet; here they are not. A
greenlet that finds none free waits for one.
"""

import os
import queue
import threading
import unittest.mock

with unittest.mock.patch.object(threading, "local", object):
    import memcache

from echo import looked_up, wsgi

clients = queue.LifoQueue()
for _ in range(int(os.environ["APP_CONNECTIONS"])):
    clients.put(memcache.Client([os.environ["APP_SERVER"]]))


def lookup(key):
    client = clients.get()
    try:
        return looked_up(client, key)
    finally:
        clients.put(client)


app = wsgi(lookup)
