"""Measures a table of cases without the library, with an older one, and with ours, and writes its document.

BENCH_CASES are the cases, all by default. BENCH_OLD is a commit whose library is measured beside ours. A case
ends by itself in the seconds that it names; one whose program is missing is skipped and named.

Answers are kept in build/bench/SUBJECT.json as long as commit and library are the same. The document is written
once it has all cases; so they can be measured one by one.
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
from lib.table import text
from lib.worker import PROGRAMS
# Before lib.cases, with which the tests' run.py comes first.
from publish import machine as machine_text
from publish import output
from lib.cases import OLD, OLD_LIBRARY, PACE, Missing
import namespaces
from support import LIBRARY

BENCH = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
COLUMNS = ["plain", *(["old"] if OLD else []), "shim"]
LIBRARIES = {"plain": None, "old": OLD_LIBRARY, "shim": LIBRARY}
SIDE_BY_SIDE = 10

HEAD = """# {title}

Made by `{command}` alone; [README.md](README.md) says how. Change nothing here: measure anew.

{machine} Library {digest}.{old}

*plain* is without the library, *shim* with it{column}. Each answer was compared with its key; a wrong one would
stand here instead of a number. A row without *must* is context.

"""


def build_old():
    if OLD and not os.path.exists(OLD_LIBRARY):
        tree = os.path.dirname(os.path.dirname(OLD_LIBRARY))
        os.makedirs(tree, exist_ok=True)
        with subprocess.Popen(["git", "-C", os.path.join(BENCH, ".."), "archive", OLD],
                              stdout=subprocess.PIPE) as archive:
            subprocess.run(["tar", "-x", "-C", tree], stdin=archive.stdout, check=True)
        subprocess.run(["make", "-s", "-C", tree, "B=build", "build/libmcpool.so"], check=True)


def digest(path):
    with open(path, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()[:12]


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


class Comparison:
    """The subject NAME, whose document has a TITLE. PROGRAM measures one case when it is called with --one; MORE
    belongs to the key of the answers, and without WHOLE no document is written."""

    def __init__(self, name, title, cases, program, more=(), whole=True):
        self.name, self.title, self.cases, self.program = name, title, cases, os.path.abspath(program)
        self.more, self.whole = list(more), whole
        self.document = os.path.join(BENCH, f"{name.upper()}.md")

    def one(self, name, column):
        """The numbers of a case, or the reason why there are none."""
        case = self.cases[name]
        try:
            namespaces.leave()
            with machine.bounded(case.seconds):
                result = case.run(LIBRARIES[column])
            return {"numbers": list(result) if isinstance(result, tuple) else [result]}
        except Missing as reason:
            return {"skipped": str(reason)}
        except Exception as error:  # whatever it is, it stands in the table
            return {"error": f"{type(error).__name__}: {error}"}

    def measure(self, name, column):
        """What one() says in a process of its own: what that leaves behind dies with it."""
        start = time.monotonic()
        try:
            done = subprocess.run([sys.executable, self.program, "--one", name, column],
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
                                  timeout=self.cases[name].seconds + 30, check=False)
            answer = json.loads(done.stdout.splitlines()[-1])
        except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
            answer = {"error": type(error).__name__}
        print(f"{name}, {column}: {answer} ({time.monotonic() - start:.0f} s)", flush=True)
        return answer

    def measure_all(self, names, answers):
        """Most side by side, the longest first; then one by one those that need the machine."""
        pairs = [(name, column) for name in names for column in COLUMNS if column in self.cases[name].columns]
        crowd = sorted((pair for pair in pairs if not self.cases[pair[0]].alone),
                       key=lambda pair: -self.cases[pair[0]].seconds)
        with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
            list(threads.map(lambda pair: answers.add(*pair, self.measure(*pair)), crowd))
        for pair in pairs:
            if self.cases[pair[0]].alone:
                answers.add(*pair, self.measure(*pair))

    def complete(self, answers, names):
        """Those of NAMES, in this order, that all columns have."""
        kept = answers.read()
        return {name: kept[name] for name in names
                if set(kept.get(name, ())) >= set(COLUMNS) & set(self.cases[name].columns)}

    def write(self, results, commit, library):
        command = f"make bench SUBJECTS={self.name}" + (f" OLD={OLD}" if OLD else "")
        head = HEAD.format(title=self.title, command=command, machine=machine_text(commit), digest=library,
                           old=f" *old* is the library of commit {OLD}." if OLD else "",
                           column=", *old* with an older one" if OLD else "")
        with open(self.document, "w", encoding="utf-8") as file:
            file.write(head + text(self.cases, results, COLUMNS))

    def main(self, arguments):
        if arguments[:1] == ["--one"]:
            print(json.dumps(self.one(*arguments[1:3])), flush=True)
            return 0
        names = os.environ.get("BENCH_CASES", "").split() or list(self.cases)
        unknown = [name for name in names if name not in self.cases]
        if unknown:
            print(f"no such case: {' '.join(unknown)}; there are: {' '.join(self.cases)}")
            return 2
        build_old()
        # A table that was written a moment ago does not make the tree dirty.
        changed = output("git", "-C", BENCH, "status", "--porcelain", "--", "..", f":!{self.document}")
        commit = output("git", "-C", BENCH, "describe", "--always") + ("-dirty" if changed else "")
        library = digest(LIBRARY)
        answers = Answers(os.path.join(PROGRAMS, f"{self.name}.json"), [commit, library, OLD, PACE, *self.more])
        self.measure_all(names, answers)
        table = text(self.cases, self.complete(answers, names), COLUMNS)
        print("\n" + table, flush=True)
        with open(os.path.join(PROGRAMS, f"{self.name}-table.md"), "w", encoding="utf-8") as file:
            file.write(table)
        complete = self.complete(answers, self.cases)
        if len(complete) == len(self.cases) and PACE == 1 and self.whole:
            self.write(complete, commit, library)
        return 0
