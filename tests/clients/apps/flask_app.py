"""Flask with python-memcached; run as a program it is the threaded development server."""

import os
import sys

import flask
import memcache

from echo import looked_up

app = flask.Flask(__name__)
client = memcache.Client([os.environ["APP_SERVER"]])


@app.route("/")
def answer():
    return looked_up(client, flask.request.query_string.decode())


if __name__ == "__main__":
    app.run("127.0.0.1", int(sys.argv[1]), threaded=True)
