"""The standard library's threaded HTTP server with python-memcached, whose client is
threading.local and so ends with the thread of the request. Usage: thread_per_request.py PORT"""

import http.server
import sys

from echo import looked_up
from memcache_app import client


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = looked_up(client, self.path.split("?")[1]).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 128


Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
