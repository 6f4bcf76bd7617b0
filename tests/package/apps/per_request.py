"""Answers /?KEY with its value, each request with a client of its own."""

import memcache


def app(environ, start_response):
    key = environ["QUERY_STRING"]
    client = memcache.Client(["127.0.0.1:11211"])
    if client.get(key) is None:
        client.set(key, f"value-of-{key}")
    value = client.get(key)
    client.disconnect_all()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [value.encode()]
