"""Makes each system call of the shim fail once, with each error that it can have.

Usage: run.py LIBRARY SCENES [EVERY]. LIBRARY is the one whose calls fail; SCENES is the program that must not
notice, and for which an operator has called `mcpool flush`. First it is run without faults to count the
calls. With EVERY, one call of so many is made to fail, from a random one on. The last line counts runs like tests.
"""

import concurrent.futures
import itertools
import os
import random
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from support import FLUSH, SLOWNESS, Memcached, die_with_parent, preloaded, wish_for


def play(library, scenes, server, call, kind):
    """What went wrong, how many calls were made, and how many errors the failed one can have."""
    with tempfile.NamedTemporaryFile("r") as count, tempfile.TemporaryDirectory() as stats:
        environment = preloaded(library, server.address, FAULT_CALL=str(call),
                                FAULT_KIND=str(kind), FAULT_COUNT=count.name,
                                MCPOOL_STATS=stats,
                                **({} if call else {"SCENES_SHARED": "1"}))

        def before_exec():
            die_with_parent()
            name, content = wish_for(os.getpid(), FLUSH)
            with open(os.path.join(stats, name), "wb") as file:
                file.write(content)

        try:
            done = subprocess.run([scenes, str(server.port)], env=environment, timeout=30 * SLOWNESS,
                                  capture_output=True, text=True, preexec_fn=before_exec)
        except subprocess.TimeoutExpired as hung:
            return f"hangs {(hung.stderr or b'').decode()}", 0, kind + 1
        calls, kinds = map(int, (count.read() or "0 0").split())
    wrong = done.stderr.strip() or (f"exit code {done.returncode}" if done.returncode else "")
    return wrong, calls, kinds


def fail_call(library, scenes, server, call):
    """What went wrong when CALL failed, for each of its errors."""
    found = []
    for kind in itertools.count():
        wrong, _, kinds = play(library, scenes, server, call, kind)
        if kind >= max(kinds, 0):
            return found
        found.append((call, kind, wrong))
    return found


def main():
    library, scenes = map(os.path.abspath, sys.argv[1:3])
    every = int(sys.argv[3]) if sys.argv[3:] else 1
    with Memcached() as server:
        wrong, calls, _ = play(library, scenes, server, 0, 0)
        if wrong:
            print(f"FAILED without faults: {wrong}")
        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            found = [one for several in
                     threads.map(lambda call: fail_call(library, scenes, server, call),
                                 range(1 + random.randrange(every), calls + 1, every)) for one in several]
    bad = [one for one in found if one[2]]
    for call, kind, wrong in bad:
        print(f"FAILED call {call}, error {kind}: {wrong}")
    print(f"{calls} calls, {'each' if every == 1 else f'one of {every}'} made to fail in every way it can: "
          f"{len(found)} runs")
    print(f"{len(found) - len(bad)} passed, {len(bad) + bool(wrong and not found)} failed")
    return 1 if bad or not found else 0


if __name__ == "__main__":
    sys.exit(main())
