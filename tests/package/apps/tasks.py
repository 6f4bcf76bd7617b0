"""Celery tasks that look a key up with a client of their own; the broker is a folder. As a program: sixty tasks."""

import celery

app = celery.Celery("tasks", broker="filesystem://", backend="file:///srv/myapp/results")
app.conf.broker_transport_options = {
    "data_folder_in": "/srv/myapp/queue", "data_folder_out": "/srv/myapp/queue",
    "processed_folder": "/srv/myapp/done", "control_folder": "/srv/myapp/control",
}


@app.task(name="tasks.look_up")
def look_up(key):
    import memcache
    client = memcache.Client(["127.0.0.1:11211"])
    client.set(key, f"value-of-{key}")
    value = client.get(key)
    client.disconnect_all()
    return value


if __name__ == "__main__":
    results = {f"task-{n}": look_up.delay(f"task-{n}") for n in range(60)}
    for key, result in results.items():
        assert result.get(timeout=60) == f"value-of-{key}"
