"""Explores the models of the lock-free protocols: every order of steps, every old value that a load
may still read.

Usage: run.py BUILD_DIRECTORY [MODEL...]

Each model, tests/models/NAME.pml, must hold for two and for three threads. Each weakening that its
comment on top lists must break it, for two threads or for three: what does not is not needed, or the
model does not see it. The last line counts runs like tests. Without spin only the lists are read.
"""

import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

HERE = os.path.dirname(os.path.abspath(__file__))
THREADS = 2, 3

# Of a run. The largest needs 20 seconds and 650 MB.
MEGABYTES = 2000
SECONDS = 300

DEEPEST = 100000

WEAKENING = re.compile(r"^ \*   ([A-Z_]+(?:=[A-Z_]+)?(?: [A-Z_]+=[A-Z_]+)*)  +(\S.*)$", re.M)

# The one assertion that does not speak of the protocol: a model needs more VERSIONS.
TOO_FEW = re.compile(r"assertion violated \(\(memory\[\d+\]\.last\+1\)<")


class Broken(Exception):
    """A model that cannot be explored: not what a weakening is to show."""


def command(words, folder, what):
    done = subprocess.run(words, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          stdin=subprocess.DEVNULL, text=True, timeout=SECONDS)
    if what and done.returncode != 0:
        raise Broken(f"{what}:\n{done.stdout[-500:]}")
    return done.stdout


def explore(model, threads, weakened, folder):
    """What is violated, or "" when all holds; and the number of states."""
    shutil.rmtree(folder, ignore_errors=True)
    os.makedirs(folder)
    flags = [f"-DTHREADS={threads}"] + [f"-D{word}" for word in weakened.split()]
    command(["spin", "-a", *flags, model], folder, "spin")
    command(["gcc", "-O1", "-w", "-DSAFETY", "-DCOLLAPSE", f"-DMEMLIM={MEGABYTES}",
             "-DVECTORSZ=4096", "-o", "pan", "pan.c"], folder, "gcc")
    told = command(["./pan", f"-m{DEEPEST}"], folder, None)
    states = re.search(r"(\d+) states, stored", told)
    errors = re.search(r"errors: (\d+)", told)
    if not errors or not states:
        raise Broken(f"pan:\n{told[-500:]}")
    if TOO_FEW.search(told):
        raise Broken("it needs more VERSIONS")
    if errors.group(1) != "0":
        violated = re.search(r"pan:1: (.*) \(at depth", told)
        return violated.group(1) if violated else "an error", int(states.group(1))
    if re.search(r"max search depth too small|out of memory|not completed", told):
        raise Broken(f"pan did not see all:\n{told[-500:]}")
    shutil.rmtree(folder)
    return "", int(states.group(1))


def holds(model, folder):
    """Lines to print and whether all is well."""
    name = os.path.basename(model)[:-4]
    lines, good = [], True
    for threads in THREADS:
        violated, states = explore(model, threads, "", f"{folder}-{threads}")
        good &= not violated
        lines.append(f"{name}, {threads} threads: " +
                     (f"VIOLATED: {violated}" if violated else f"holds in {states} states"))
    return lines, good


def breaks(model, weakened, what, folder):
    name = os.path.basename(model)[:-4]
    for threads in THREADS:
        violated, _ = explore(model, threads, weakened, f"{folder}-{threads}")
        if violated:
            return [f"{name}, {weakened} ({what}): broken with {threads} threads, as it must"], True
    return [f"{name}, {weakened} ({what}): STILL HOLDS"], False


def weakenings(model):
    with open(model, encoding="utf-8") as file:
        return WEAKENING.findall(file.read())


def lists_are_whole(models):
    """Each model lists weakenings, and knows each of them; and has no other."""
    for model in models:
        with open(model, encoding="utf-8") as file:
            known = set(re.findall(r"^#ifn?def (\w+)$", file.read(), re.M))
        listed = {word.split("=")[0] for weakened, _ in weakenings(model)
                  for word in weakened.split()}
        if not listed or listed != known:
            return [f"{os.path.basename(model)}: listed and known differ: "
                    f"{' '.join(listed ^ known)}"], False
    return [f"{len(models)} models list their weakenings"], True


def runs(models, build):
    for model in models:
        name = os.path.basename(model)[:-4]
        yield holds, (model, os.path.join(build, name))
        for number, (weakened, what) in enumerate(weakenings(model)):
            yield breaks, (model, weakened, what, os.path.join(build, f"{name}-weak{number}"))


def one(run):
    function, arguments = run
    try:
        return function(*arguments)
    except (Broken, subprocess.TimeoutExpired) as broken:
        return [f"{' '.join(map(os.path.basename, arguments[:2]))}: {broken}"], False


def main():
    build = os.path.abspath(os.path.join(sys.argv[1], "models"))
    wanted = sys.argv[2:] or sorted(name[:-4] for name in os.listdir(HERE)
                                    if name.endswith(".pml") and name != "memory.pml")
    models = [os.path.join(HERE, f"{name}.pml") for name in wanted]
    every = list(runs(models, build))
    passed = failed = 0

    def count(lines, good):
        nonlocal passed, failed
        print("\n".join(lines if good else [f"FAILED {line}" for line in lines]), flush=True)
        passed += good
        failed += not good

    count(*lists_are_whole(models))
    if not shutil.which("spin"):
        print(f"[SKIP] no spin, so no model was explored\n"
              f"{passed} passed, {failed} failed, {len(every)} skipped")
        return 1 if failed else 0
    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(one, every):
            count(*result)
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
