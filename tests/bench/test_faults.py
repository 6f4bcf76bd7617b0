"""Each case of bench/faults can fail: with a library that is broken on purpose (broken.c) each of its musts is
missed, and with a library that does nothing all are met. No test measures time: what is broken is so at once,
and the cases run at a tenth of their time or less."""

import concurrent.futures
import os
import re

import pytest

from broken import OLD, agrees, measure, numbers
from lib.table import cell, table, verdict
from faults.cases import CASES

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


def names_of(mode):
    return [name for name in CASES if name.startswith(BROKEN[mode])]


MODE_OF = {name: mode for mode in BROKEN for name in names_of(mode)}
# A night runs all; else one stands for those that differ in a word.
ALIKE = re.compile(r"^(quiet|full)-(?!poll-at-once)|^server-(?!php-fpm)|^end-(?!php)|^reload-(?!uwsgi|php)|"
                   r"^blackhole-(?!1.5)|^calls-of-a-wait-(?!epoll)|^forgotten-(four|reset|later-poll)|"
                   r"^switched-(?!flush)")
RUN = [name for name in MODE_OF if os.environ.get("FAULTS_TESTED") == "all" or not ALIKE.match(name)]


@pytest.fixture(scope="session")
def measured(tmp_path_factory):
    def with_broken(mode, names):
        return measure("faults", mode, names, tmp_path_factory.mktemp("build"),
                       OLD if "cost-gunicorn-gevent" in names else None, FAULTS_SECONDS="6")
    return with_broken


@pytest.fixture(scope="session")
def broken(measured):
    chosen = {mode: [name for name in names_of(mode) if name in RUN] for mode in BROKEN}
    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        answers = threads.map(measured, chosen, chosen.values())
    return {name: answer for part in answers for name, answer in part.items()}


@pytest.fixture(scope="session")
def harmless(measured):
    return measured("", [name for name in RUN if name not in NOT_MET])


def test_every_case_is_here():
    assert sorted(MODE_OF) == sorted(CASES)


# How long a reload or an end takes without the library at most, unless the machine is so busy that it may take as long
# as with a broken one.
PLAIN_SECONDS = 2


@pytest.mark.parametrize("name", RUN)
def test_every_must_can_be_missed(broken, name):
    for answer in broken[name].values():
        assert len(numbers(answer)) == len(CASES[name].rows)
    for index, row in enumerate(CASES[name].rows):
        if row.what == "seconds" and numbers(broken[name]["plain"])[index] > PLAIN_SECONDS:
            continue
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
    text, missed = table(CASES, {"quiet-poll-at-once": {"plain": plain, "shim": shim},
                          "firewall": {"plain": plain, "shim": {"skipped": "no such program: nft"}},
                          "shares": {"plain": plain, "shim": {"error": "Wrong: 1 wrong answers"}},
                          "cost-gunicorn-gevent": {"shim": {"numbers": [0.985]}}}, ["plain", "shim"])
    assert missed == ["quiet-poll-at-once", "shares", "cost-gunicorn-gevent"]
    assert "| held by one process then, at most | 0 | 32 | 1 | **no** |" in text
    assert "| `firewall` | skipped: no such program: nft |" in text
    assert re.search(r"`shares` .* \| Wrong: 1 wrong answers \| as plain \| \*\*no\*\* \|", text)
    assert re.search(r"`cost-gunicorn-gevent` .* \|  \| 0.98 \| 0.99 at least \| \*\*no\*\* \|", text)
    _, missed = table(CASES, {"cost-gunicorn-gevent": {"shim": {"numbers": [0.995]}}}, ["plain", "shim"])
    assert not missed
    assert cell({"numbers": [0.5]}, 0) == "0.50"


def test_document_is_what_the_bench_writes():
    """When this fails after a case was changed, measure anew: `make bench SUBJECTS=faults`."""
    agrees("FAULTS.md", CASES)
