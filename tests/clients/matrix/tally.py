"""The count every Python program here keeps of its answers, and the line it ends with."""

import os
import sys

from echo import value_of

OPERATIONS = int(os.environ["APP_OPERATIONS"])
CONCURRENCY = int(os.environ["APP_CONCURRENCY"])
SERVER = os.environ["APP_SERVER"]
KEYS = [f"key-{number}" for number in range(OPERATIONS)]


def open_files():
    return len(os.listdir("/proc/self/fd"))


class Tally:
    """ANSWERED WRONG FDS, where FDS is how many more descriptors are open than at the start."""

    def __init__(self):
        self.answered = self.wrong = 0
        self.files = open_files()

    def count(self, key, value):
        if isinstance(value, bytes):
            value = value.decode()
        if value == value_of(key):
            self.answered += 1
        else:
            self.wrong += 1
            print(f"{key} has {value!r}", file=sys.stderr)

    def counted(self, lookup):
        """LOOKUP, a function of a key, as one that counts; an exception leaves it unanswered."""
        def look_up(key):
            try:
                value = lookup(key)
            except Exception as error:
                print(f"{key}: {error!r}", file=sys.stderr)
            else:
                self.count(key, value)
        return look_up

    def end(self):
        print(self.answered, self.wrong, open_files() - self.files)
        sys.exit(0 if self.answered == OPERATIONS and not self.wrong else 1)
