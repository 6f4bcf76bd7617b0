"""Rows of the client matrix of today; see newest.py. NEWEST_ROWS=all runs every row, as a night does."""

import os

import pytest

from newest import ROWS, Missing, both, faults

CHOSEN = [name for name, row in ROWS.items()
          if row.daily or os.environ.get("NEWEST_ROWS") == "all"]


@pytest.mark.parametrize("name", CHOSEN)
def test_row(name):
    row = ROWS[name]
    try:
        without, outcome, said = both(row)
    except Missing as reason:
        pytest.skip(str(reason))
    assert not list(faults(row, without, outcome, said)), outcome.errors
