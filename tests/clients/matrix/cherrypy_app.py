"""CherryPy's server with python-memcached in its pool of threads. Usage: cherrypy_app.py PORT"""

import sys

import cherrypy

from memcache_app import app

cherrypy.tree.graft(app, "/")
cherrypy.config.update({"server.socket_host": "127.0.0.1", "server.socket_port": int(sys.argv[1]),
                        "server.thread_pool": 8, "server.socket_queue_size": 128,
                        "engine.autoreload.on": False, "log.screen": False})
cherrypy.engine.signals.subscribe()
cherrypy.engine.start()
cherrypy.engine.block()
