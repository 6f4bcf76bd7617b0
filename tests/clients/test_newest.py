"""Rows of the client matrix of today; see newest.py. NEWEST_ROWS=all runs all, as a night does."""

import os

import pytest

from newest import HERE_ONLY, ROWS, Missing, both, faults, pins
from test_matrix import documented

CHOSEN = [name for name, row in ROWS.items()
          if row.daily or os.environ.get("NEWEST_ROWS") == "all"]


def test_every_version_is_pinned():
    """A difference between folders and rows shows even when no registry can be reached."""
    pinned = pins()
    for name, row in ROWS.items():
        assert row.versions, name
        for version in row.versions:
            assert version in pinned or version.startswith(HERE_ONLY), version


def test_every_row_is_documented():
    assert documented("Today's versions") == [(row.client, row.how) for row in ROWS.values()]


@pytest.mark.parametrize("name", CHOSEN)
def test_row(name):
    row = ROWS[name]
    try:
        without, outcome, said = both(row)
    except Missing as reason:
        pytest.skip(str(reason))
    assert not list(faults(row, without, outcome, said)), outcome.errors
