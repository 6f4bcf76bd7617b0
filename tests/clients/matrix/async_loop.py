"""A new client for every operation. Usage: async_loop.py asyncio|uvloop [CLIENT]

The CLIENT is streams, which are asyncio's own, aiomcache, emcache, emcache-login or aiocache.
"""

import asyncio
import sys

from echo import value_of
from tally import CONCURRENCY, KEYS, SERVER, Tally

HOST, PORT = SERVER.rsplit(":", 1)


async def with_streams(key):
    reader, writer = await asyncio.open_connection(HOST, int(PORT))
    value = value_of(key)
    writer.write(f"set {key} 0 0 {len(value)}\r\n{value}\r\n".encode())
    assert await reader.readline() == b"STORED\r\n"
    writer.write(f"get {key}\r\n".encode())
    await reader.readline()
    found = await reader.readline()
    assert await reader.readline() == b"END\r\n"
    writer.close()
    await writer.wait_closed()
    return found.rstrip()


async def with_aiomcache(key):
    import aiomcache
    client = aiomcache.Client(HOST, int(PORT))
    await client.set(key.encode(), value_of(key).encode())
    value = await client.get(key.encode())
    await client.close()
    return value


async def with_emcache(key, **login):
    import emcache
    client = await emcache.create_client([emcache.MemcachedHostAddress(HOST, int(PORT))],
                                         timeout=10, **login)
    await client.set(key.encode(), value_of(key).encode())
    item = await client.get(key.encode())
    await client.close()
    return item.value


async def with_aiocache(key):
    from aiocache import MemcachedCache
    async with MemcachedCache(endpoint=HOST, port=int(PORT)) as cache:
        await cache.set(key, value_of(key))
        return await cache.get(key)


CLIENTS = {"streams": with_streams, "aiomcache": with_aiomcache, "emcache": with_emcache,
           "emcache-login": lambda key: with_emcache(key, username="bob", password="secret"),
           "aiocache": with_aiocache}
looked_up = CLIENTS[sys.argv[2] if len(sys.argv) > 2 else "streams"]


async def main():
    places = asyncio.Semaphore(CONCURRENCY)

    async def one(key):
        async with places:
            try:
                value = await looked_up(key)
            except Exception as error:
                print(f"{key}: {error!r}", file=sys.stderr)
            else:
                tally.count(key, value)

    await asyncio.gather(*map(one, KEYS))


if sys.argv[1] == "uvloop":
    import uvloop
    uvloop.install()

tally = Tally()
asyncio.run(main())
tally.end()
