"""Sixty connections of python-memcached, one after the other. Prints how many memcached has accepted."""

import memcache

for n in range(60):
    client = memcache.Client(["127.0.0.1:11211"])
    assert client.set(f"key-{n}", f"value-of-{n}")
    client.disconnect_all()
    client = memcache.Client(["127.0.0.1:11211"])
    assert client.get(f"key-{n}") == f"value-of-{n}"
    client.disconnect_all()
[(_, stats)] = memcache.Client(["127.0.0.1:11211"]).get_stats()
print(stats["total_connections"])
