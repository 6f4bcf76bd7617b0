"""A memcached that is slow on purpose and answers every key with a value that names the key.

Usage: slow_server.py PORT SEED. It speaks `get` and `set` of the text protocol, delays answers at
random, now and then stalls all of them and lets them go at once, and sends some in fragments.
`stats` answers the number of connections accepted.
"""

import asyncio
import random
import sys


class SlowServer:
    def __init__(self, seed):
        self.random = random.Random(seed)
        self.accepted = 0
        self.open = asyncio.Event()
        self.open.set()

    async def stall_now_and_then(self):
        while True:
            await asyncio.sleep(self.random.uniform(0.05, 0.3))
            self.open.clear()
            await asyncio.sleep(self.random.uniform(0.01, 0.08))
            self.open.set()

    async def delay(self):
        if self.random.random() < 0.3:
            await asyncio.sleep(self.random.expovariate(1 / 0.01))
        await self.open.wait()

    async def send(self, writer, answer):
        """Whole, or in two parts with a pause between."""
        cut = self.random.randrange(len(answer)) if self.random.random() < 0.3 else 0
        writer.write(answer[:cut])
        if cut:
            await writer.drain()
            await asyncio.sleep(self.random.uniform(0, 0.01))
        writer.write(answer[cut:])
        await writer.drain()

    async def answer(self, line, reader):
        words = line.split()
        if words[0] == b"get":
            value = b"value-of-" + words[1]
            return b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (words[1], len(value), value)
        if words[0] == b"set":
            await reader.readexactly(int(words[4]) + 2)
            return b"STORED\r\n"
        if words[0] == b"stats":
            return b"STAT total_connections %d\r\nEND\r\n" % self.accepted
        return b"ERROR\r\n"

    async def serve(self, reader, writer):
        self.accepted += 1
        try:
            while line := await reader.readline():
                answer = await self.answer(line, reader)
                await self.delay()
                await self.send(writer, answer)
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


async def main():
    server = SlowServer(int(sys.argv[2]))
    stalls = asyncio.create_task(server.stall_now_and_then())
    listener = await asyncio.start_server(server.serve, "127.0.0.1", int(sys.argv[1]), backlog=512)
    async with listener:
        await listener.serve_forever()
    await stalls


if __name__ == "__main__":
    asyncio.run(main())
