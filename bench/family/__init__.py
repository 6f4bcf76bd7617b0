"""The cases of the subject `family`: each module registers its own, in the order of the table."""

import lib  # first, because it finds what the tests share
from family import web, forks, room, costs
