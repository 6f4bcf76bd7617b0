"""Settings of gunicorn for bursts that are meant for one worker: each worker also listens at APP_PORT and its
number."""

import itertools
import os

numbers = itertools.count()


def pre_fork(_, worker):
    worker.number = next(numbers)


def post_worker_init(worker):
    from gevent.pywsgi import WSGIServer

    worker.own = WSGIServer(("127.0.0.1", int(os.environ["APP_PORT"]) + worker.number), worker.wsgi, log=None)
    worker.own.start()
