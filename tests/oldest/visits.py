"""Sixty visits of the application at port 8000. Prints how many connections memcached has accepted."""

import time
import urllib.request

import memcache

for attempt in range(100):
    try:
        urllib.request.urlopen("http://127.0.0.1:8000/?first").read()
        break
    except OSError:
        time.sleep(0.1)
for n in range(60):
    answer = urllib.request.urlopen(f"http://127.0.0.1:8000/?key-{n}").read()
    assert answer == b"value-of-key-%d" % n, answer
[(_, stats)] = memcache.Client(["127.0.0.1:11211"]).get_stats()
print(stats["total_connections"])
