"""Faults: what a program sees, and what stays open, when a server, its network or the program goes away or
quiet; without the library and with it. lib/comparison.py says which variables choose cases.

Usage: faults.py                                the table
       faults.py --one CASE plain|old|shim      the numbers of a case
       faults.py --endurance                    that case alone, for FAULTS_SECONDS, counted as a test
"""

import sys

from lib.comparison import Comparison
from lib.table import verdict

from faults import endurance
from faults.cases import CASES

FAULTS = Comparison("faults", "Faults", CASES, __file__, [endurance.SECONDS], endurance.SECONDS == endurance.WHOLE)


def endurance_as_test():
    """Says what passed of the endurance case."""
    answer = FAULTS.measure("endurance", "shim")
    if "skipped" in answer:
        print("[SKIP] endurance\n0 passed, 0 failed, 1 skipped")
        return 0
    met = [verdict(row, {"shim": answer}, index) for index, row in enumerate(CASES["endurance"].rows)]
    print(f"{met.count('yes')} passed, {met.count('**no**')} failed")
    return 1 if "**no**" in met else 0


if __name__ == "__main__":
    sys.exit(endurance_as_test() if sys.argv[1:2] == ["--endurance"] else FAULTS.main(sys.argv[1:]))
