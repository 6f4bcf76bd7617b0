"""Every row of the client matrix without and with the shim; see matrix.py."""

import os
import re

import pytest

from matrix import HERE, LIBRARY, ROWS, Missing, faults, run


def documented(title):
    """The rows of the table behind TITLE in README.md, as (client, how)."""
    with open(os.path.join(HERE, "README.md"), encoding="utf-8") as file:
        table = file.read().split(f"\n## {title}\n")[1].split("\n## ")[0]
    return re.findall(r"^\| (.*?) \| (.*?) \|", table, re.M)[1:]


def test_every_row_is_documented():
    assert documented("Debian 12's versions") == [(row.client, row.how) for row in ROWS.values()]


@pytest.mark.parametrize("name", ROWS)
def test_row(name):
    row = ROWS[name]
    try:
        without, outcome = run(row, None), run(row, LIBRARY)
    except Missing as reason:
        pytest.skip(str(reason))
    assert not list(faults(row, without, outcome)), outcome.errors
