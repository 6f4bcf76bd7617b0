"""Every row of the client matrix without and with the shim; see matrix.py."""

import pytest

from matrix import LIBRARY, ROWS, Missing, faults, run


@pytest.mark.parametrize("name", ROWS)
def test_row(name):
    row = ROWS[name]
    try:
        without, outcome = run(row, None), run(row, LIBRARY)
    except Missing as reason:
        pytest.skip(str(reason))
    assert not list(faults(row, without, outcome)), outcome.errors
