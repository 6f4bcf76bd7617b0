"""A Celery task for every operation, by a worker that is started and ended here.

Usage: celery_loop.py prefork|gevent. The broker and the results are files.
"""

import os
import subprocess
import sys
import tempfile

from tally import CONCURRENCY, KEYS, Tally

PATIENCE = 45

with tempfile.TemporaryDirectory() as directory:
    os.environ["APP_DIRECTORY"] = directory
    import celery_tasks
    for folder in celery_tasks.FOLDERS.values():
        os.makedirs(folder)
    tally = Tally()
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_tasks", "worker", "-P", sys.argv[1],
         "-c", str(CONCURRENCY), "-l", "ERROR", "--without-heartbeat", "--without-gossip",
         "--without-mingle"])
    results = {key: celery_tasks.look_up.delay(key) for key in KEYS}
    look_up = tally.counted(lambda key: results[key].get(timeout=PATIENCE))
    for key in KEYS:
        look_up(key)
    worker.terminate()
    worker.wait(PATIENCE)
    tally.end()
