"""A web page from the cache, by an unmodified python-memcached client; see the directories here."""

import os

import memcache

cache = memcache.Client([os.environ.get("MEMCACHED", "127.0.0.1:11211")])


def app(environ, start_response):
    """Answers /?KEY with the value of KEY, which is made when the cache has none."""
    key = environ["QUERY_STRING"] or "nothing"
    value = cache.get(key)
    if value is None:
        value = f"value-of-{key}"
        cache.set(key, value)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [value.encode()]
