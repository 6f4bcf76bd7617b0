"""Twisted's web server with python-memcached in its threads. Usage: twisted_app.py PORT"""

import sys

from twisted.internet import reactor, threads
from twisted.web import resource, server

from echo import looked_up
from memcache_app import client


class Answers(resource.Resource):
    isLeaf = True

    def render_GET(self, request):
        key = request.uri.split(b"?")[1].decode()

        def answer(value):
            request.write(value.encode())
            request.finish()

        threads.deferToThread(looked_up, client, key).addCallback(answer)
        return server.NOT_DONE_YET


reactor.listenTCP(int(sys.argv[1]), server.Site(Answers()), interface="127.0.0.1")
reactor.run()
