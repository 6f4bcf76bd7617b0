"""Fuzzes the wire tracker, beginning with the inputs kept from earlier runs.

Usage: run.py BUILD_DIRECTORY [SECONDS]. Runs each fuzzer found there for so long (default: 10) from the
committed corpus, of which it works on a copy. An input that fails is kept in BUILD_DIRECTORY. The
last line counts like a test's.
"""

import glob
import os
import random
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
KINDS = ("text", "meta", "binary")


def fuzz(kind, build, seconds):
    """True when no input failed."""
    seed = random.SystemRandom().randrange(1, 2**31)
    with tempfile.TemporaryDirectory() as directory:
        corpus = os.path.join(directory, "corpus")
        shutil.copytree(os.path.join(HERE, "corpus", kind), corpus)
        command = [os.path.join(build, f"fuzz-{kind}"), corpus, f"-seed={seed}",
                   f"-max_total_time={seconds}", "-max_len=4096", "-rss_limit_mb=1024",
                   "-verbosity=0", f"-dict={os.path.join(HERE, kind)}.dict",
                   f"-artifact_prefix={build}/{kind}-", "-print_final_stats=1"]
        done = subprocess.run(command, stderr=subprocess.PIPE, text=True, errors="replace")
    runs = [line.split()[-1] for line in done.stderr.splitlines()
            if line.startswith("stat::number_of_executed_units")]
    failed = "FAILED " if done.returncode != 0 else ""
    print(f"{failed}{kind}: seed {seed}, {runs[0] if runs else 'no'} inputs")
    if done.returncode != 0:
        print(done.stderr)
        print("kept:", *glob.glob(f"{build}/{kind}-*"))
    return done.returncode == 0


def main():
    build = sys.argv[1]
    seconds = sys.argv[2] if len(sys.argv) > 2 else "10"
    good = [fuzz(kind, build, seconds) for kind in KINDS]
    print(f"{sum(good)} passed, {len(good) - sum(good)} failed")
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
