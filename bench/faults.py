"""Faults: what a program sees, and what stays open, when a server, its network or the program goes away or
quiet; without the library and with it.

FAULTS_CASES are the cases, all by default. FAULTS_OLD is a commit whose library is measured beside ours. A case
ends by itself in the seconds that it names; one whose program is missing is skipped and named.

Answers are kept in build/bench/faults.json as long as commit and library are the same. FAULTS.md is written
once it has all cases; so they can be measured one by one.

Usage: faults.py                                the table
       faults.py --one CASE plain|old|shim      the numbers of a case
       faults.py --endurance                    that case alone, for FAULTS_SECONDS, counted as a test
"""

import concurrent.futures
import contextlib
import fcntl
import hashlib
import json
import os
import subprocess
import sys
import time

from lib import machine
from lib.worker import PROGRAMS
import namespaces
from publish import machine as machine_text
from publish import output
from support import LIBRARY

from faults import endurance
from faults.cases import CASES, OLD, OLD_LIBRARY, PACE, Missing
from faults.table import document, text, verdict

HERE = os.path.dirname(os.path.abspath(__file__))
DOCUMENT = os.path.join(HERE, "FAULTS.md")
KEPT = os.path.join(PROGRAMS, "faults.json")
COLUMNS = ["plain", *(["old"] if OLD else []), "shim"]
LIBRARIES = {"plain": None, "old": OLD_LIBRARY, "shim": LIBRARY}
SIDE_BY_SIDE = 10


def one(name, column):
    """The numbers of a case, or the reason why there are none."""
    case = CASES[name]
    try:
        namespaces.leave()
        with machine.bounded(case.seconds):
            result = case.run(LIBRARIES[column])
        return {"numbers": list(result) if isinstance(result, tuple) else [result]}
    except Missing as reason:
        return {"skipped": str(reason)}
    except Exception as error:  # whatever it is, it stands in the table
        return {"error": f"{type(error).__name__}: {error}"}


def measure(name, column):
    """What one() says in a process of its own: what that leaves behind dies with it."""
    start = time.monotonic()
    try:
        done = subprocess.run([sys.executable, os.path.abspath(__file__), "--one", name, column],
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                              timeout=CASES[name].seconds + 30, check=False)
        answer = json.loads(done.stdout.splitlines()[-1])
    except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
        answer = {"error": type(error).__name__}
    print(f"{name}, {column}: {answer} ({time.monotonic() - start:.0f} s)", flush=True)
    return answer


def build_old():
    if OLD and not os.path.exists(OLD_LIBRARY):
        tree = os.path.dirname(os.path.dirname(OLD_LIBRARY))
        os.makedirs(tree, exist_ok=True)
        with subprocess.Popen(["git", "-C", os.path.join(HERE, ".."), "archive", OLD],
                              stdout=subprocess.PIPE) as archive:
            subprocess.run(["tar", "-x", "-C", tree], stdin=archive.stdout, check=True)
        subprocess.run(["make", "-s", "-C", tree, "B=build", "build/libmcpool.so"], check=True)


class Answers:
    """{case: {column: answer}} in a file, which several runs of this program may share."""

    def __init__(self, path, key):
        self.path, self.key = path, key

    def read(self):
        with contextlib.suppress(OSError, ValueError), open(self.path, encoding="utf-8") as file:
            kept = json.load(file)
            if kept["key"] == self.key:
                return kept["cases"]
        return {}

    def add(self, name, column, answer):
        with open(self.path + ".lock", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            cases = self.read()
            cases.setdefault(name, {})[column] = answer
            with open(self.path + ".new", "w", encoding="utf-8") as file:
                json.dump({"key": self.key, "cases": cases}, file, indent=1)
            os.replace(self.path + ".new", self.path)

    def complete(self, names):
        """Those of NAMES, in this order, that all columns have."""
        cases = self.read()
        return {name: cases[name] for name in names
                if set(cases.get(name, ())) >= set(COLUMNS) & set(CASES[name].columns)}


def measure_all(names, answers):
    """Most side by side, the longest first; then one by one those that need the machine."""
    pairs = [(name, column) for name in names for column in COLUMNS if column in CASES[name].columns]
    crowd = sorted((pair for pair in pairs if not CASES[pair[0]].alone), key=lambda pair: -CASES[pair[0]].seconds)
    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        list(threads.map(lambda pair: answers.add(*pair, measure(*pair)), crowd))
    for pair in pairs:
        if CASES[pair[0]].alone:
            answers.add(*pair, measure(*pair))


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]


def endurance_as_test():
    """Says what passed of the endurance case."""
    answer = measure("endurance", "shim")
    if "skipped" in answer:
        print("[SKIP] endurance\n0 passed, 0 failed, 1 skipped")
        return 0
    met = [verdict(row, {"shim": answer}, index) for index, row in enumerate(CASES["endurance"].rows)]
    print(f"{met.count('yes')} passed, {met.count('**no**')} failed")
    return 1 if "**no**" in met else 0


def main():
    if sys.argv[1:2] == ["--one"]:
        print(json.dumps(one(*sys.argv[2:4])), flush=True)
        return 0
    if sys.argv[1:2] == ["--endurance"]:
        return endurance_as_test()
    names = os.environ.get("FAULTS_CASES", "").split() or list(CASES)
    unknown = [name for name in names if name not in CASES]
    if unknown:
        print(f"no such case: {' '.join(unknown)}; there are: {' '.join(CASES)}")
        return 2
    build_old()
    # A table that was written a moment ago does not make the tree dirty.
    changed = output("git", "-C", HERE, "status", "--porcelain", "--", "..", f":!{DOCUMENT}")
    commit = output("git", "-C", HERE, "describe", "--always") + ("-dirty" if changed else "")
    library = digest(LIBRARY)
    answers = Answers(KEPT, [commit, library, OLD, PACE, endurance.SECONDS])
    measure_all(names, answers)
    table = text(answers.complete(names), COLUMNS)
    print("\n" + table, flush=True)
    with open(os.path.join(PROGRAMS, "faults-table.md"), "w", encoding="utf-8") as file:
        file.write(table)
    complete = answers.complete(CASES)
    if len(complete) == len(CASES) and PACE == 1 and endurance.SECONDS == endurance.WHOLE:
        with open(DOCUMENT, "w", encoding="utf-8") as file:
            file.write(document(complete, COLUMNS, machine_text(commit), library, OLD))
    return 0


if __name__ == "__main__":
    sys.exit(main())
