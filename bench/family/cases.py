"""The cases of `family`: each module registers its own."""

from lib.cases import Cases

CASES = Cases()
case = CASES.case
