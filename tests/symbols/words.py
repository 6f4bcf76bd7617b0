"""One word for one thing: the words that the trade has, in code, comments and documents.

Looks for words of a private language in shim/, tests/ and the documents, and for comments that speak of
a thread, a process or a connection as of a person. A word that must stay somewhere stands in ALLOWED.
"""

import os
import re
import subprocess

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")

# The word, and what is said instead.
INSTEAD = {
    r"twins?": "shadow fd",
    r"sweeps?|swept": "bulk close, closed in bulk",
    r"lend(s|ing)?|lent": "check out, reuse",
    r"goodbyes?": "quit",
    r"owing": "draining",
    r"disguised?": "install",
    r"victims?": "evicted; program",
    r"private (number|fd)s?": "shadow fd",
    r"whoever|somebody|nobody|newcomers?": "the thread, the process, no thread",
    r"he|him|his|himself": "it, that thread",
}

SEARCHED = re.compile(r"^(shim/.*|tests/.*\.(c|h|py|md|sh)|bench/.*\.(c|h|py)|[A-Z]+\.md)$")
NOT_SEARCHED = re.compile(r"^(tests/clients/(registry|apps|matrix)/|tests/fuzz/corpus/|tests/symbols/words|"
                          r"CHANGELOG|shim/life.svg|shim/cli/grafana/)")

# Of people, or names that are not ours to choose.
ALLOWED = re.compile(r'"nobody"|nobody:|-u nobody|\bNOBODY\b|user nobody|nogroup')


def found():
    """(path:line, word, what to say) of each such word."""
    files = subprocess.run(["git", "-C", TOP, "ls-files"], stdout=subprocess.PIPE, text=True,
                           check=True).stdout.splitlines()
    words = re.compile(r"\b(" + "|".join(f"(?:{word})" for word in INSTEAD) + r")\b", re.I)
    for path in files:
        if not SEARCHED.match(path) or NOT_SEARCHED.match(path):
            continue
        with open(os.path.join(TOP, path), encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                for match in words.finditer(ALLOWED.sub("", line).replace("_", " ")):
                    instead = next(text for word, text in INSTEAD.items()
                                   if re.fullmatch(word, match.group(), re.I))
                    yield f"{path}:{number}", match.group(), instead


if __name__ == "__main__":
    for place, word, instead in found():
        print(f"{place}: '{word}': {instead}")
