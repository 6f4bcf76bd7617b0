"""asyncio.open_connection() for every operation. Usage: async_loop.py asyncio|uvloop"""

import asyncio
import sys

from echo import value_of
from tally import CONCURRENCY, KEYS, SERVER, Tally

HOST, PORT = SERVER.rsplit(":", 1)


async def looked_up(key):
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
