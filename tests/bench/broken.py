"""Runs cases of the bench with a library that is broken on purpose, and reads its documents."""

import json
import os
import re
import shutil
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
BENCH = os.path.abspath(os.path.join(HERE, "..", "..", "bench"))
sys.path[:0] = [BENCH, os.path.join(HERE, "..")]
from support import BUILD, PYTHON

from lib.table import verdict

PACE = "0.1"
# Names the older library, which does nothing.
OLD = "right"
PROGRAMS = "faults/client", "family/ring", "lib/turns", "forwarder"


def compile_broken(path, *options):
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-O1", *options, "-o", path,
                    os.path.join(HERE, "broken.c"), "-ldl"], check=True)


def measure(subject, mode, names, build, old=None, **more):
    """{case: {column: answer}} with the library that is broken in a way. BUILD is an empty folder, which other users
    are let into. A user that is not root can only read the documents and the tables."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    for folder in (build, *build.parents[:2]):
        folder.chmod(0o755)
    older = build / "bench" / f"old-{OLD}" / "build"
    older.mkdir(parents=True)
    compile_broken(build / "libmcpool.so")
    compile_broken(older / "libmcpool.so", "-DRIGHT")
    for program in PROGRAMS:
        (build / "bench" / program).parent.mkdir(exist_ok=True)
        shutil.copy(os.path.join(BUILD, "bench", program), build / "bench" / program)
    # A command that knows flush.
    (build / "mcpool").write_text("#!/bin/sh\necho ' flush'\n")
    (build / "mcpool").chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("BENCH_", "FAULTS_"))}
    environment.update(BROKEN=mode, BENCH_CASES=" ".join(names), BENCH_PACE=PACE, TEST_BUILD=str(build), **more)
    if old:
        environment["BENCH_OLD"] = old
    done = subprocess.run([PYTHON, os.path.join(BENCH, f"{subject}.py")], env=environment, stdout=subprocess.PIPE,
                          text=True, check=True)
    print(done.stdout)
    return json.loads((build / "bench" / f"{subject}.json").read_text())["cases"]


def numbers(answer):
    if "skipped" in answer:
        pytest.skip(answer["skipped"])
    assert "numbers" in answer, answer
    return answer["numbers"]


def number(text):
    return float(text) if "." in text else int(text)


def agrees(document, cases):
    """Asserts that a document is what the bench writes of these cases."""
    with open(os.path.join(BENCH, document), encoding="utf-8") as file:
        text = file.read()
    lines = [re.sub(r"^\| | \|$", "", line).split(" | ") for line in re.findall(r"^\| .*", text, re.M)]
    columns = lines[0][2:-2]
    seen, missed, name = {}, [], None
    for first, what, *values, must, met in lines[2:]:
        name = first.strip("`") or name
        if what.startswith("skipped: "):
            seen[name] = [row.what for row in cases[name].rows]
            continue
        row = cases[name].rows[len(seen.setdefault(name, []))]
        seen[name].append(what)
        assert must == row.must, (name, what)
        answers = {column: {"numbers": [number(value)]} if re.fullmatch(r"[\d.-]+", value) else {"error": value}
                   for column, value in zip(columns, values) if value}
        assert met == verdict(row, answers, 0), (name, what)
        if met == "**no**" and name not in missed:
            missed.append(name)
    assert seen == {name: [row.what for row in case.rows] for name, case in cases.items()}
    assert (f"Not met: {', '.join(missed)}." if missed else "All musts are met.") in text
