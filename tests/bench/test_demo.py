"""The part of `make demo` about several workers: it shows what the library does and what a broken one does, and the
README says what it shows."""

import os
import re
import sys

import pytest

from broken import BENCH, compile_broken
from support import LIBRARY

sys.path.append(os.path.join(BENCH, "demo"))
from sharing import BURST, ROOM, WORKERS, Row, is_good, show_sharing

APART = WORKERS * BURST
JUST_GOOD = {"without": Row(APART, BURST, APART, 0, 0), "MCPOOL_SHARE=off": Row(APART, ROOM + 1, 0, 0, 0),
             "libmcpool": Row(ROOM, ROOM, 0, 0, 0)}


def table(text):
    found = re.findall(r"^    (\S+) +(\d+) +(\d+) +(\d+) +(\d+) +(\d+)$", text, re.M)
    return {name: Row(*map(int, numbers)) for name, *numbers in found}


def test_workers_share(capsys):
    assert show_sharing(LIBRARY, rounds=1)
    rows = table(capsys.readouterr().out)
    assert list(rows) == list(JUST_GOOD)
    assert rows["without"].opened == APART and rows["without"].waiting > ROOM
    assert rows["libmcpool"].opened <= ROOM and rows["libmcpool"].waiting == 0


def test_a_broken_library_is_seen(capsys, monkeypatch, tmp_path):
    compile_broken(tmp_path / "broken.so")
    monkeypatch.setenv("BROKEN", "keep wrong")
    assert not show_sharing(str(tmp_path / "broken.so"), rounds=2)    # first all values are set
    row = table(capsys.readouterr().out)["libmcpool"]
    assert row.most > ROOM and row.failed + row.wrong > 0


@pytest.mark.parametrize("name, changes", [
    ("libmcpool", {"most": ROOM + 1}), ("MCPOOL_SHARE=off", {"most": ROOM}),
    *((name, {what: 1}) for name in JUST_GOOD for what in ("failed", "wrong"))])
def test_every_must_can_be_missed(name, changes):
    assert is_good(JUST_GOOD)
    assert not is_good(JUST_GOOD | {name: JUST_GOOD[name]._replace(**changes)})


def test_readme_says_what_is_shown():
    with open(os.path.join(BENCH, "..", "README.md"), encoding="utf-8") as file:
        text = " ".join(file.read().split())
    [found] = re.findall(r"(\d+) requests at a time are spread over (\d+) workers: (\d+) connections .*? at most (\d+) ",
                         text)
    assert tuple(map(int, found)) == (BURST, WORKERS, APART, ROOM)
