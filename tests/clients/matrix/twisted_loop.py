"""A new MemCacheProtocol for every operation, given up with transport.loseConnection()."""

import sys

from twisted.internet import defer, protocol, reactor
from twisted.protocols.memcache import MemCacheProtocol

from echo import value_of
from tally import CONCURRENCY, KEYS, SERVER, Tally

HOST, PORT = SERVER.rsplit(":", 1)


@defer.inlineCallbacks
def look_up(key):
    creator = protocol.ClientCreator(reactor, MemCacheProtocol)
    client = yield creator.connectTCP(HOST, int(PORT))
    try:
        yield client.set(key.encode(), value_of(key).encode())
        _, value = yield client.get(key.encode())
    finally:
        client.transport.loseConnection()
    tally.count(key, value)


def tell(failure):
    print(failure, file=sys.stderr)


def run():
    places = defer.DeferredSemaphore(CONCURRENCY)
    done = defer.DeferredList([places.run(look_up, key).addErrback(tell) for key in KEYS])
    done.addCallback(lambda _: reactor.callLater(0.1, reactor.stop))


tally = Tally()
reactor.callWhenRunning(run)
reactor.run()
tally.end()
