"""An ASGI application that answers /?KEY with a new client for every request.

APP_LOOKUP says how: "streams", on the loop, or "threads", python-memcached in asyncio.to_thread().
"""

import asyncio
import os

from echo import looked_up, value_of

SERVER = os.environ["APP_SERVER"]
HOST, PORT = SERVER.rsplit(":", 1)


async def with_streams(key):
    reader, writer = await asyncio.open_connection(HOST, int(PORT))
    value = value_of(key)
    writer.write(f"set {key} 0 0 {len(value)}\r\n{value}\r\nget {key}\r\n".encode())
    await reader.readline()
    await reader.readline()
    found = await reader.readline()
    await reader.readline()
    writer.close()
    await writer.wait_closed()
    return found.rstrip().decode()


def in_thread(key):
    import memcache
    client = memcache.Client([SERVER], socket_timeout=10)
    try:
        return looked_up(client, key)
    finally:
        client.disconnect_all()


LOOKUPS = {"streams": with_streams, "threads": lambda key: asyncio.to_thread(in_thread, key)}
look_up = LOOKUPS[os.environ["APP_LOOKUP"]]


async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        for stage in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{stage}.complete"})
        return
    body = (await look_up(scope["query_string"].decode())).encode()
    await send({"type": "http.response.start", "status": 200,
                "headers": [(b"content-type", b"text/plain"),
                            (b"content-length", str(len(body)).encode())]})
    await send({"type": "http.response.body", "body": body})
