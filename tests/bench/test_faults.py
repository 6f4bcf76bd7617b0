"""Each case of bench/faults can fail: with a library that is broken on purpose (broken.c) each of its musts is
missed, and with a library that does nothing all are met. No test measures time: what is broken is so at once,
and the cases run at a tenth of their time or less."""

import concurrent.futures
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

from faults.cases import CASES
from faults.table import cell, table, verdict

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")

# What broken.c does to the cases whose names begin so.
BROKEN = {
    "keep": ("quiet-", "full-", "forgotten-", "killed-", "switched-"),
    "hoard refuse": ("server-",),
    "refuse": ("blackhole-", "firewall", "stopped-", "recycling-"),
    "fail": ("loss",),
    "fail stubborn": ("reload-gunicorn-", "reload-uwsgi-"),
    "refuse late": ("reload-php-fpm-",),
    "stubborn": ("end-",),
    "busy": ("calls-", "wake-ups"),
    "unfair": ("shares",),
    "leak": ("endurance",),
    "slow": ("cost-",),
}
# Cases with rows that need a library that pools, a warm program or a quiet machine.
NOT_MET = ("loss", "endurance", "cost-gunicorn-gevent")
WRONG = ("quiet-poll-at-once", "server-php-fpm", "forgotten-python-memcached", "endurance")
PACE = "0.1"


def names_of(mode):
    return [name for name in CASES if name.startswith(BROKEN[mode])]


MODE_OF = {name: mode for mode in BROKEN for name in names_of(mode)}
# A night runs all; else one stands for those that differ in a word.
ALIKE = re.compile(r"^(quiet|full)-(?!poll-at-once)|^server-(?!php-fpm)|^end-(?!php)|^reload-(?!uwsgi|php)|"
                   r"^blackhole-(?!1.5)|^calls-of-a-wait-(?!epoll)|^forgotten-(four|reset|later-poll)|"
                   r"^switched-(?!flush)")
RUN = [name for name in MODE_OF if os.environ.get("FAULTS_TESTED") == "all" or not ALIKE.match(name)]


def compile_broken(path, *options):
    subprocess.run(["gcc", "-D_GNU_SOURCE", "-shared", "-fPIC", "-O1", *options, "-o", path,
                    os.path.join(HERE, "broken.c"), "-ldl"], check=True)


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    """A function that runs the bench: {case: {column: answer}} with the library that is broken in a way."""
    def measure(mode, names):
        build = tmp_path_factory.mktemp("build")
        (build / "bench" / "faults").mkdir(parents=True)
        compile_broken(build / "libmcpool.so")
        # The older library.
        (build / "bench" / "old-right" / "build").mkdir(parents=True)
        compile_broken(build / "bench" / "old-right" / "build" / "libmcpool.so", "-DRIGHT")
        shutil.copy(os.path.join(BUILD, "bench", "faults", "client"), build / "bench" / "faults")
        # A command that knows flush.
        (build / "mcpool").write_text("#!/bin/sh\necho ' flush'\n")
        (build / "mcpool").chmod(0o755)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("FAULTS_")}
        environment.update(BROKEN=mode, FAULTS_CASES=" ".join(names), FAULTS_PACE=PACE, FAULTS_SECONDS="6",
                           TEST_BUILD=str(build))
        if "cost-gunicorn-gevent" in names:
            environment["FAULTS_OLD"] = "right"
        done = subprocess.run([PYTHON, os.path.join(BENCH, "faults.py")], env=environment,
                              stdout=subprocess.PIPE, text=True, check=True)
        print(done.stdout)
        return json.loads((build / "bench" / "faults.json").read_text())["cases"]
    return measure


@pytest.fixture(scope="session")
def broken(measured):
    chosen = {mode: [name for name in names_of(mode) if name in RUN] for mode in BROKEN}
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        answers = threads.map(measured, chosen, chosen.values())
    return {name: answer for part in answers for name, answer in part.items()}


@pytest.fixture(scope="session")
def harmless(measured):
    return measured("", [name for name in RUN if name not in NOT_MET])


def numbers(answer):
    if "skipped" in answer:
        pytest.skip(answer["skipped"])
    assert "numbers" in answer, answer
    return answer["numbers"]


def test_every_case_is_here():
    assert sorted(MODE_OF) == sorted(CASES)


@pytest.mark.parametrize("name", RUN)
def test_every_must_can_be_missed(broken, name):
    for answer in broken[name].values():
        assert len(numbers(answer)) == len(CASES[name].rows)
    for index, row in enumerate(CASES[name].rows):
        if row.met:
            assert verdict(row, broken[name], index) == "**no**", (row.what, broken[name])


@pytest.mark.parametrize("name", [name for name in RUN if name not in NOT_MET])
def test_a_library_that_does_nothing_meets_them(harmless, name):
    for answer in harmless[name].values():
        numbers(answer)
    for index, row in enumerate(CASES[name].rows):
        if row.met:
            assert verdict(row, harmless[name], index) == "yes", (row.what, harmless[name])


def test_wrong_answers_are_no_number(measured):
    answers = measured("wrong", WRONG)
    for name in WRONG:
        if "skipped" not in answers[name]["shim"]:
            assert answers[name]["shim"].get("error", "").startswith("Wrong"), (name, answers[name])
            assert all(verdict(row, answers[name], index) in ("", "**no**")
                       for index, row in enumerate(CASES[name].rows))


def test_table():
    """What is skipped, what went wrong, and what is not met stand in the table."""
    plain, shim = {"numbers": [0] * 7}, {"numbers": [1280, 20, 1008, 32, 20, 1008, 20]}
    text, missed = table({"quiet-poll-at-once": {"plain": plain, "shim": shim},
                          "firewall": {"plain": plain, "shim": {"skipped": "no such program: nft"}},
                          "shares": {"plain": plain, "shim": {"error": "Wrong: 1 wrong answers"}},
                          "cost-gunicorn-gevent": {"shim": {"numbers": [0.985]}}}, ["plain", "shim"])
    assert missed == ["quiet-poll-at-once", "shares", "cost-gunicorn-gevent"]
    assert "| held by one process then, at most | 0 | 32 | 1 | **no** |" in text
    assert "| `firewall` | skipped: no such program: nft |" in text
    assert re.search(r"`shares` .* \| Wrong: 1 wrong answers \| as plain \| \*\*no\*\* \|", text)
    assert re.search(r"`cost-gunicorn-gevent` .* \|  \| 0.98 \| 0.99 at least \| \*\*no\*\* \|", text)
    _, missed = table({"cost-gunicorn-gevent": {"shim": {"numbers": [0.995]}}}, ["plain", "shim"])
    assert not missed
    assert cell({"numbers": [0.5]}, 0) == "0.50"


def number(text):
    return float(text) if "." in text else int(text)


def test_document_is_what_the_bench_writes():
    """When this fails after a case was changed, measure anew: `make bench SUBJECTS=faults`."""
    with open(os.path.join(BENCH, "FAULTS.md"), encoding="utf-8") as file:
        text = file.read()
    lines = [re.sub(r"^\| | \|$", "", line).split(" | ") for line in re.findall(r"^\| .*", text, re.M)]
    columns = lines[0][2:-2]
    seen, missed, name = {}, [], None
    for first, what, *values, must, met in lines[2:]:
        name = first.strip("`") or name
        if what.startswith("skipped: "):
            seen[name] = [row.what for row in CASES[name].rows]
            continue
        row = CASES[name].rows[len(seen.setdefault(name, []))]
        seen[name].append(what)
        assert must == row.must, (name, what)
        answers = {column: {"numbers": [number(value)]} if re.fullmatch(r"[\d.-]+", value) else {"error": value}
                   for column, value in zip(columns, values) if value}
        assert met == verdict(row, answers, 0), (name, what)
        if met == "**no**" and name not in missed:
            missed.append(name)
    assert seen == {name: [row.what for row in case.rows] for name, case in CASES.items()}
    assert (f"Not met: {', '.join(missed)}." if missed else "All musts are met.") in text
