"""What subjects share: rounds, reports, workers and the machine; beside what the tests share."""

import os
import sys

TESTS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests")
sys.path += [TESTS, os.path.join(TESTS, "clients"), os.path.join(TESTS, "soak")]
