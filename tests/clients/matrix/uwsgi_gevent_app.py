"""python-memcached under uwsgi's gevent, which leaves it to the application to patch itself."""

from gevent import monkey
monkey.patch_all()

from memcache_app import app as application
