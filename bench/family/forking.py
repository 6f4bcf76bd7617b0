"""A web server that forks for each request: socketserver.ForkingMixIn, whose children leave by os._exit(). Each asks
memcached on a connection of its own. Usage: forking.py PORT"""

import http.server
import os
import socketserver
import sys

import memcache

from echo import looked_up


class Page(http.server.BaseHTTPRequestHandler):
    timeout = 20

    def do_GET(self):
        client = memcache.Client([os.environ["APP_SERVER"]], socket_timeout=10)
        body = str(looked_up(client, self.path.partition("?")[2])).encode()
        client.disconnect_all()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


class Server(socketserver.ForkingMixIn, socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 128


with Server(("127.0.0.1", int(sys.argv[1])), Page) as server:
    server.serve_forever()
