"""Each case of bench/family can fail: with a library that is broken on purpose (broken.c) each of its musts is
missed. A library that does nothing opens too many connections for some; each must is met by the number that it
names, and not by the next one."""

import concurrent.futures

import pytest

from broken import OLD, measure, numbers
from lib.table import verdict
from family.cases import CASES

# What broken.c does to these cases.
BROKEN = {
    "keep fail": ("wander-gunicorn-gevent", "gunicorn-sync"),
    "hoard refuse": ("php-fpm-unprivileged", "shrinks-gunicorn-gevent"),
    "fail": ("recycled-gunicorn-gevent", "reload-gunicorn-gevent", "fork-per-request", "fork-per-request-docker",
             "fork-per-request-docker-always"),
    "adrift": ("all-block",),
    "flight": ("passing-1", "passing-4", "passing-16"),
    "slow hoard": ("give-and-take-1", "give-and-take-8", "give-and-take-0.5-ms"),
    "slow": ("hit-time", "hit-time-of-a-member", "busy-gunicorn-sync"),
    "busy": ("hit-calls",),
    "heavy": ("hit-instructions",),
}
# Those whose musts are met without any pool.
HARMLESS = ("wander-gunicorn-gevent", "gunicorn-sync", "php-fpm-unprivileged", "shrinks-gunicorn-gevent", "all-block",
            "fork-per-request-docker")
# What just meets the musts of the others; None is context.
JUST = {
    "recycled-gunicorn-gevent": (170, 60),
    "reload-gunicorn-gevent": (None, 170, 40),
    "fork-per-request": (0, 16),
    "fork-per-request-docker-always": (0, 16),
    **{f"passing-{count}": (64, 0, None) for count in (1, 4, 16)},
    "give-and-take-1": (0.35, 2),
    "give-and-take-8": (0.35, 16),
    "give-and-take-0.5-ms": (0.01, 1.1, 2, None),
    "hit-time": (1.02,),
    "hit-time-of-a-member": (1.02,),
    "hit-calls": (11.1,),
    "hit-instructions": (1.02, 1.02),
    "busy-gunicorn-sync": (None, None),
}
# Times of which others are subtracted: noise may be more than what the broken library adds.
DIFFERENCES = {("give-and-take-1", 0), ("give-and-take-8", 0), ("give-and-take-0.5-ms", 0), ("give-and-take-0.5-ms", 1)}
PLAIN = {"numbers": [100] * 5}


@pytest.fixture(scope="session")
def broken(tmp_path_factory):
    def with_broken(mode):
        return measure("family", mode, BROKEN[mode], tmp_path_factory.mktemp("build"), OLD if mode in ("slow", "heavy") else None)

    with concurrent.futures.ThreadPoolExecutor(3) as threads:
        return {name: answer for part in threads.map(with_broken, BROKEN) for name, answer in part.items()}


@pytest.fixture(scope="session")
def harmless(tmp_path_factory):
    return measure("family", "", HARMLESS, tmp_path_factory.mktemp("build"))


def musts(name):
    return [(index, row) for index, row in enumerate(CASES[name].rows) if row.met]


def test_every_case_is_here():
    assert sorted(name for names in BROKEN.values() for name in names) == sorted(CASES)
    assert sorted([*HARMLESS, *JUST]) == sorted(CASES)


@pytest.mark.parametrize("name", CASES)
def test_every_must_can_be_missed(broken, name):
    for answer in broken[name].values():
        assert len(numbers(answer)) == len(CASES[name].rows)
    for index, row in musts(name):
        if (name, index) not in DIFFERENCES:
            assert verdict(row, broken[name], index) == "**no**", (row.what, broken[name])


@pytest.mark.parametrize("name", HARMLESS)
def test_a_library_that_does_nothing_meets_them(harmless, name):
    for index, row in musts(name):
        assert numbers(harmless[name]["shim"])
        assert verdict(row, harmless[name], index) == "yes", (row.what, harmless[name])


@pytest.mark.parametrize("name", JUST)
def test_every_must_can_be_met(name):
    for index, row in musts(name):
        least = JUST[name][index]
        for value, met in ((least, "yes"), (least + (0.01 if isinstance(least, float) else 1), "**no**")):
            answers = {"plain": PLAIN, "shim": {"numbers": [value] * len(CASES[name].rows)}}
            assert verdict(row, answers, index) == met, (row.what, value)


def test_nothing_in_queues_is_not_met():
    assert verdict(CASES["passing-1"].rows[0], {"shim": {"numbers": [0]}}, 0) == "**no**"
