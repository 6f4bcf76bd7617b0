"""The cases of the subject `faults`: each module registers its own, in the order of the table."""

import lib  # first, because it finds what the tests share
from faults import quiet, graceful, paths, system, cost, endurance
