"""gunicorn whose workers can be asked one by one: each also listens at APP_PORT and its number. It is told by
`-c` and this file."""

import itertools
import os
import time

numbers = itertools.count()


def pre_fork(_, worker):
    worker.number = next(numbers)


def post_worker_init(worker):
    from gevent.pywsgi import WSGIServer

    worker.own = WSGIServer(("127.0.0.1", int(os.environ["APP_PORT"]) + worker.number), worker.wsgi, log=None)
    worker.own.start()


def wait_for_workers(first, count):
    """Until all ports from FIRST on are listened at."""
    from support import listens

    deadline = time.monotonic() + 20
    while not all(listens(first + number) for number in range(count)):
        if time.monotonic() > deadline:
            raise RuntimeError("not all workers listen")
        time.sleep(0.1)
