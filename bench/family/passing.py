"""A program that passes descriptors and has nothing to do with memcached: passing.py COUNT SECONDS. It has COUNT of
them in flight again and again, and prints how often it could not pass one, and how many it did."""

import os
import resource
import socket
import sys
import time

COUNT, SECONDS = int(sys.argv[1]), float(sys.argv[2])

resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024))
# One pair of sockets takes fewer than COUNT messages.
pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(16)]
null = os.open("/dev/null", os.O_RDONLY)
failed = passed = 0
end = time.monotonic() + SECONDS
while time.monotonic() < end:
    sent = []
    for number in range(COUNT):
        giving, taking = pairs[number % len(pairs)]
        try:
            socket.send_fds(giving, [b"."], [null], socket.MSG_DONTWAIT)
            sent.append(taking)
        except OSError:
            failed += 1
    for taking in sent:
        for descriptor in socket.recv_fds(taking, 1, 1)[1]:
            os.close(descriptor)
    passed += len(sent)
print(failed, passed)
