"""Writes a compilation database, which clangd and others read, to the standard output.

The input is what `make -nB V=1` says it would run. A file that is compiled more than once has the
options of the first time.
"""

import json
import os
import shlex
import sys


def compilations(lines):
    """(file, arguments) of each C file or assembly file that a command among LINES compiles."""
    for line in lines:
        words = shlex.split(line)
        if "-o" in words and not words[-1].startswith("-"):
            for word in words:
                if word.endswith((".c", ".S")):
                    yield word, words


def main():
    commands = {}
    for file, arguments in compilations(sys.stdin.read().replace("\\\n", " ").splitlines()):
        commands.setdefault(file, {"directory": os.getcwd(), "file": file, "arguments": arguments})
    json.dump(list(commands.values()), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
