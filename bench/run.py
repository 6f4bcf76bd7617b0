"""`make bench`: runs the subjects, all or those named, each a program of its own beside this one.

Usage: run.py BUILD_DIRECTORY [SUBJECT...]. A subject prints its tables and leaves them, its plots
and its raw numbers in BUILD_DIRECTORY/bench; see README.md.
"""

import contextlib
import os
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
PYTHON = "/usr/bin/python3"

# In the order of the results. Each bounds itself well below what it is given here.
SUBJECTS = ("cycle", "calls", "cost", "network", "choices", "growth", "untracked", "footprint", "fork",
            "fleet", "observe", "unix_fence")
# Measured only when they are named: they take long, and write documents of their own.
APART = ("faults", "family")
SECONDS = 600
APART_SECONDS = 2700


def run(subject, build):
    """True when SUBJECT came to its end."""
    for stale in (f"{subject}.md", f"{subject}.headlines.csv"):
        with contextlib.suppress(FileNotFoundError):
            os.remove(os.path.join(build, "bench", stale))
    start = time.monotonic()
    try:
        done = subprocess.run([PYTHON, os.path.join(HERE, f"{subject}.py")],
                              timeout=APART_SECONDS if subject in APART else SECONDS,
                              env=dict(os.environ, TEST_BUILD=build), check=False).returncode == 0
    except subprocess.TimeoutExpired:
        done = False
    print(f"{subject}: {'' if done else 'FAILED, '}{time.monotonic() - start:.0f} seconds\n",
          flush=True)
    return done


def main():
    build, subjects = os.path.abspath(sys.argv[1]), sys.argv[2:] or SUBJECTS
    unknown = [subject for subject in subjects if subject not in SUBJECTS + APART]
    if unknown:
        print(f"no such subject: {' '.join(unknown)}; there are: "
              f"{' '.join(SUBJECTS + APART)}")
        return 2
    failed = [subject for subject in subjects if not run(subject, build)]
    if failed:
        print("failed: " + " ".join(failed))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
