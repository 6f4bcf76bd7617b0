"""Web servers with unmodified memcached clients: as many connections as requests at a time.

To add a program, add a row: the command, the application, and its environment.
"""

import os
import sys

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from matrix import why_no_backend
from support import LIBRARY, PYTHON, Memcached, Process, free_port, load, preloaded

APPS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "apps")
CONCURRENCY = 10
REQUESTS = 300
# A thread or greenlet closes its client when it ends. That may be long after its answer was read and the next
# requests have come, so more clients exist than requests at a time.
MOST = 3 * CONCURRENCY


def gunicorn(worker, *options):
    return lambda app, port: [PYTHON, "-m", "gunicorn", "-b", f"127.0.0.1:{port}", "-k", worker,
                              *options, f"{app}:app"]


def program(app, port):
    return [PYTHON, f"{app}.py", str(port)]


PYWSGI = "gunicorn.workers.ggevent.GeventPyWSGIWorker"

# name: (command, application, environment)
ROWS = {
    "gevent": (gunicorn("gevent"), "memcache_app", {}),
    "pywsgi": (gunicorn(PYWSGI), "memcache_app", {}),
    "eventlet": (gunicorn("eventlet"), "memcache_app", {}),
    "gthread": (gunicorn("gthread", "--threads", "10"), "memcache_app", {}),
    "sync": (gunicorn("sync", "-w", "2"), "memcache_app", {}),
    "gevent-pymemcache": (gunicorn("gevent"), "pymemcache_app", {}),
    "gevent-pymemcache-noreply": (gunicorn("gevent"), "pymemcache_app", {"APP_NOREPLY": "1"}),
    "sync-pymemcache": (gunicorn("sync", "-w", "2"), "pymemcache_app", {}),
    "gevent-preload": (gunicorn("gevent", "--preload", "-w", "2"), "memcache_at_import", {}),
    "sync-preload": (gunicorn("sync", "--preload", "-w", "3"), "memcache_at_import", {}),
    "django-gevent": (gunicorn("gevent"), "django_app", {"APP_BACKEND": "MemcachedCache"}),
    "django-sync": (gunicorn("sync", "-w", "2"), "django_app", {"APP_BACKEND": "MemcachedCache"}),
    "django-gevent-pymemcache": (gunicorn("gevent"), "django_app",
                                 {"APP_BACKEND": "PyMemcacheCache"}),
    "django-sync-pymemcache": (gunicorn("sync", "-w", "2"), "django_app",
                               {"APP_BACKEND": "PyMemcacheCache"}),
    "flask-gevent": (gunicorn("gevent"), "flask_app", {}),
    "flask-threads": (program, "flask_app", {}),
}


def run(row, library, requests=REQUESTS):
    """Serves and loads one row; returns the load and the connections opened meanwhile."""
    command, app, more = ROWS[row]
    if reason := why_no_backend(more):
        pytest.skip(reason)
    port = free_port()
    with Memcached() as server:
        environment = preloaded(library, server.address, APP_SERVER=server.address, **more)
        with Process(command(app, port), port, environment, cwd=APPS):
            before = server.stats()
            outcome = load(port, requests, CONCURRENCY)
            return outcome, server.connections_since(before)


@pytest.mark.parametrize("row", ROWS)
def test_connections_follow_concurrency(row):
    outcome, opened = run(row, LIBRARY)
    assert outcome.wrong == 0 and outcome.failed == 0 and outcome.answered == REQUESTS
    assert opened <= MOST


@pytest.mark.parametrize("row", ["gevent", "django-sync", "flask-threads"])
def test_without_the_shim_they_follow_requests(row):
    """Without the library the problem is there: otherwise the tests above would prove nothing."""
    outcome, opened = run(row, None)
    assert outcome.answered == REQUESTS
    assert opened >= REQUESTS


def test_one_request_at_a_time_needs_one_connection():
    """Or two, when one greenlet is still ending as the next one begins."""
    command, app, _ = ROWS["gevent"]
    port = free_port()
    with Memcached() as server:
        environment = preloaded(LIBRARY, server.address, APP_SERVER=server.address)
        with Process(command(app, port), port, environment, cwd=APPS):
            before = server.stats()
            assert load(port, 100, 1).answered == 100
            assert server.connections_since(before) <= 2


def test_dry_run_counts_and_changes_nothing(tmp_path):
    command, app, _ = ROWS["gthread"]
    port = free_port()
    log = tmp_path / "log"
    with Memcached() as server:
        environment = preloaded(LIBRARY, server.address, APP_SERVER=server.address,
                                MCPOOL_DRY_RUN="1", MCPOOL_LOG=str(log), MCPOOL_LOG_LEVEL="debug")
        with Process(command("pymemcache_app", port), port, environment, cwd=APPS):
            before = server.stats()
            assert load(port, 50, 1).answered == 50
            assert server.connections_since(before) == 50
    assert log.read_text().count("would be reused") >= 45


def test_memcached_restarts_under_the_pool():
    """All idle connections are stale at once: the application must get none of them."""
    command, app, _ = ROWS["gthread"]
    port = free_port()
    server = Memcached()
    environment = preloaded(LIBRARY, server.address, APP_SERVER=server.address)
    with Process(command("pymemcache_app", port), port, environment, cwd=APPS):
        assert load(port, 100, CONCURRENCY).answered == 100
        server.stop()
        again = Process(server.process.args, server.port)
        try:
            outcome = load(port, 100, CONCURRENCY, first_key=1000)
        finally:
            again.stop()
    assert outcome.answered == 100
