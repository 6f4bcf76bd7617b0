"""Faults: what a program sees, and what stays open, when a server, its network or the program goes away or
quiet; without the library and with it. Writes FAULTS.md.

FAULTS_CASES are the cases, all by default. Only with all of them FAULTS.md is written; the table is in
build/bench in any case. FAULTS_OLD is another library to measure beside ours. A case ends by itself in the
seconds that it names; one whose program is missing is skipped and named.

Usage: faults.py [--one CASE plain|old|shim]
"""

import concurrent.futures
import json
import os
import subprocess
import sys
import time

from lib import machine
from lib.worker import PROGRAMS
from publish import machine as machine_text
from support import LIBRARY

from faults import graceful, paths, quiet, system  # each registers its cases
from faults.cases import CASES, Missing

HERE = os.path.dirname(os.path.abspath(__file__))
DOCUMENT = os.path.join(HERE, "FAULTS.md")
OLD = os.environ.get("FAULTS_OLD", "")
COLUMNS = ["plain", *(["old"] if OLD else []), "shim"]
LIBRARIES = {"plain": None, "old": os.path.abspath(OLD) if OLD else None, "shim": LIBRARY}
SIDE_BY_SIDE = 10

HEAD = """# Faults

Made by `make bench SUBJECTS=faults{old_command}`; [README.md](README.md) says how.

{machine}

*plain* is without the library, *shim* with it{old}. Each answer was compared with its key; a wrong one would
stand here instead of a number. A row without *must* is context.

"""


def one(name, column):
    """Prints the numbers of a case, as JSON, or the reason why there are none."""
    case = CASES[name]
    try:
        with machine.bounded(case.seconds):
            result = case.run(LIBRARIES[column])
        answer = {"numbers": list(result) if isinstance(result, tuple) else [result]}
    except Missing as reason:
        answer = {"skipped": str(reason)}
    except Exception as error:  # whatever it is, it stands in the table
        answer = {"error": f"{type(error).__name__}: {error}"}
    print(json.dumps(answer), flush=True)


def measure(name, column):
    """What one() prints, in a process of its own: what that leaves behind dies with it."""
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


def measure_all(names):
    """{(case, column): answer}: most side by side, then one by one those that need the machine."""
    results = {}
    crowd = [(name, column) for name in names if not CASES[name].alone for column in COLUMNS]
    with concurrent.futures.ThreadPoolExecutor(SIDE_BY_SIDE) as threads:
        results.update(zip(crowd, threads.map(lambda pair: measure(*pair), crowd)))
    for name in names:
        if CASES[name].alone:
            results.update({(name, column): measure(name, column) for column in COLUMNS})
    return results


def cell(answer, index):
    if "numbers" in answer:
        value = answer["numbers"][index]
        return f"{value:.2f}" if isinstance(value, float) else str(value)
    return answer.get("skipped", answer.get("error"))


def verdict(row, answers, index):
    plain, shim = answers["plain"], answers["shim"]
    if not row.met or "skipped" in shim or "skipped" in plain:
        return ""
    if "error" in shim or "error" in plain:
        return "**no**"
    return "yes" if row.met(shim["numbers"][index], plain["numbers"][index]) else "**no**"


def table(names, results):
    """The table, and the names of the cases whose musts are not met."""
    lines = [["case", "what is counted", *COLUMNS, "must", "met"]]
    missed = []
    for name in names:
        answers = {column: results[name, column] for column in COLUMNS}
        if "skipped" in answers["shim"]:
            lines.append([f"`{name}`", "skipped: " + answers["shim"]["skipped"], *[""] * len(COLUMNS), "", ""])
            continue
        for index, row in enumerate(CASES[name].rows):
            met = verdict(row, answers, index)
            lines.append(["" if index else f"`{name}`", row.what,
                          *(cell(answers[column], index) for column in COLUMNS), row.must, met])
            if "no" in met and name not in missed:
                missed.append(name)
    rule = ["---", "---", *["---:"] * len(COLUMNS), "---", "---"]
    return "\n".join("| " + " | ".join(line) + " |" for line in [lines[0], rule, *lines[1:]]), missed


def main():
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:4])
        return 0
    chosen = os.environ.get("FAULTS_CASES", "").split()
    unknown = [name for name in chosen if name not in CASES]
    if unknown:
        print(f"no such case: {' '.join(unknown)}; there are: {' '.join(CASES)}")
        return 2
    names = chosen or list(CASES)
    lines, missed = table(names, measure_all(names))
    text = lines + "\n\n" + (f"Not met: {', '.join(missed)}." if missed else "All musts are met.") + "\n"
    print("\n" + text, flush=True)
    with open(os.path.join(PROGRAMS, "faults-table.md"), "w", encoding="utf-8") as file:
        file.write(text)
    if not chosen:
        with open(DOCUMENT, "w", encoding="utf-8") as file:
            file.write(HEAD.format(machine=machine_text(), old=", *old* with another one" if OLD else "",
                                   old_command=" OLD=..." if OLD else "") + text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
