"""The load of wrk, which checks every answer."""

import json
import os
import subprocess

LOAD = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "choices", "load.lua")


def wrk(port, connections, seconds):
    """What load.lua says after SECONDS of load on CONNECTIONS."""
    done = subprocess.run(["wrk", f"-t{connections}", f"-c{connections}", f"-d{seconds}s", "-s", LOAD,
                           f"http://127.0.0.1:{port}/"],
                          stdout=subprocess.PIPE, text=True, check=True, timeout=60)
    said = json.loads(done.stdout.splitlines()[-1])
    if not said["requests"]:
        raise RuntimeError("nothing was answered")
    return said
