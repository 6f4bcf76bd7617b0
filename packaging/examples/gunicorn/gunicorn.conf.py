# Pooled, from the directory of app.py:
#
#     mcpool run -- gunicorn -c gunicorn/gunicorn.conf.py app:app
#
# or, the same without the command:
#
#     LD_PRELOAD=libmcpool.so gunicorn -c gunicorn/gunicorn.conf.py app:app
#
# A preload must be in the environment that gunicorn is started with; raw_env, in this file, comes
# too late for it and for the MCPOOL_ variables.

bind = "127.0.0.1:8000"
worker_class = "gevent"
workers = 2
