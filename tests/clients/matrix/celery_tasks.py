"""Celery tasks that look one key up each, with a client of their own; see celery_loop.py."""

import os

import celery

from echo import looked_up
from tally import SERVER

DIRECTORY = os.environ["APP_DIRECTORY"]
FOLDERS = {name: os.path.join(DIRECTORY, name) for name in ("queue", "done", "control", "results")}

app = celery.Celery("tasks", broker="filesystem://", backend=f"file://{FOLDERS['results']}")
app.conf.broker_transport_options = {
    "data_folder_in": FOLDERS["queue"], "data_folder_out": FOLDERS["queue"],
    "processed_folder": FOLDERS["done"], "control_folder": FOLDERS["control"],
}


@app.task
def look_up(key):
    import memcache
    client = memcache.Client([SERVER], socket_timeout=10)
    try:
        return looked_up(client, key)
    finally:
        client.disconnect_all()
