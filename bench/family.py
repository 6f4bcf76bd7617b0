"""The family: what the processes that one ancestor has forked share; without the library, with an older one, and with
it. lib/comparison.py says which variables choose cases.

Usage: family.py                                the table
       family.py --one CASE plain|old|shim      the numbers of a case
"""

import sys

from lib.comparison import Comparison

from family.cases import CASES

if __name__ == "__main__":
    sys.exit(Comparison("family", "The family", CASES, __file__).main(sys.argv[1:]))
