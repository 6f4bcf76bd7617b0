"""A memcached that is slow on purpose and answers every key with a value that names the key.

Usage: slow_server.py PORT SEED. It speaks a few commands of the text and of the binary protocol,
delays answers at random, now and then stalls all of them and lets them go at once, and sends some
in fragments. `stats` answers the number of connections accepted.
"""

import asyncio
import random
import struct
import sys

HEADER = struct.Struct(">BBHBBHIIQ")
GET, NOOP, DELETEQ = 0x00, 0x0A, 0x14
NOT_FOUND = 1


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

    async def text(self, first, reader):
        """The answer to the request that begins with FIRST; None ends the connection."""
        words = (first + await reader.readline()).split()
        if words[0] == b"get":
            value = b"value-of-" + words[1]
            return b"VALUE %s 0 %d\r\n%s\r\nEND\r\n" % (words[1], len(value), value)
        if words[0] == b"set":
            await reader.readexactly(int(words[4]) + 2)
            return b"STORED\r\n"
        if words[0] == b"stats":
            return b"STAT total_connections %d\r\nEND\r\n" % self.accepted
        return {b"mn": b"MN\r\n", b"delete": b"", b"quit": None}.get(words[0], b"ERROR\r\n")

    async def binary(self, first, reader):
        packet = first + await reader.readexactly(HEADER.size - 1)
        _, opcode, _, _, _, _, length, opaque, _ = HEADER.unpack(packet)
        body = await reader.readexactly(length)

        def reply(status, extras, value):
            return HEADER.pack(0x81, opcode, 0, len(extras), 0, status, len(extras + value),
                               opaque, 0) + extras + value
        if opcode == GET:
            return reply(0, bytes(4), b"value-of-" + body)
        if opcode == NOOP:
            return reply(0, b"", b"")
        # A quiet request that has an answer gets it.
        return reply(NOT_FOUND, b"", b"") if opcode == DELETEQ else None

    async def serve(self, reader, writer):
        self.accepted += 1
        try:
            while first := await reader.read(1):
                speak = self.binary if first == b"\x80" else self.text
                answer = await speak(first, reader)
                if answer is None:
                    break
                await self.delay()
                if answer:
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
