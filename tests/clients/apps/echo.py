"""The key-echo oracle of all applications here: the value of a key says which key it is of."""


def value_of(key):
    return f"value-of-{key}"


def looked_up(client, key):
    """The value of KEY, from the cache or put there; client has get() and set()."""
    value = client.get(key)
    if value is None:
        client.set(key, value_of(key))
        value = client.get(key)
    return value.decode() if isinstance(value, bytes) else value


def wsgi(lookup):
    """A WSGI application that answers /?KEY with what LOOKUP finds."""
    def application(environ, start_response):
        body = lookup(environ["QUERY_STRING"]).encode()
        start_response("200 OK", [("Content-Type", "text/plain"),
                                  ("Content-Length", str(len(body)))])
        return [body]
    return application
