"""One word for one thing: code, comments and documents use the trade's word. symbols.py runs this check.

Looks for the words of a private language in shim/, tests/, bench/ and the documents, and for comments that
speak of a thread, a process or a connection as of a person.
"""

import os
import re

TOP = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")

# The word, and what to say instead.
INSTEAD = {
    r"twins?": "shadow fd, copy",
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
WORDS = re.compile(r"\b(?:" + "|".join(f"(?:{word})" for word in INSTEAD) + r")\b", re.I)

SEARCHED = re.compile(r"^(shim/.*|tests/.*\.(c|h|py|md|sh)|bench/.*\.(c|h|py)|[A-Z]+\.md)$")
NOT_SEARCHED = re.compile(r"^(tests/clients/(registry|apps|matrix)/|tests/fuzz/corpus/|tests/symbols/words|"
                          r"CHANGELOG|shim/life.svg|shim/cli/grafana/)|/__pycache__/|(~|\.bak|\.orig|\.rej|\.swp)$")

# The user of that name.
ALLOWED = re.compile(r'"nobody"|nobody:|(-u|--reuid|chown|user) nobody\b')


def searched():
    """The paths of the files to look at, from the top of the tree."""
    for top in ("shim", "tests", "bench", ""):
        for folder, _, names in os.walk(os.path.join(TOP, top)) if top else [(TOP, [], os.listdir(TOP))]:
            for name in names:
                path = os.path.relpath(os.path.join(folder, name), TOP)
                if SEARCHED.match(path) and not NOT_SEARCHED.search(path):
                    yield path


def no_word_of_a_private_language():
    """Each one with its place and what to say instead."""
    wrong = set()
    for path in searched():
        with open(os.path.join(TOP, path), encoding="utf-8", errors="replace") as file:
            for number, line in enumerate(file, 1):
                for match in WORDS.finditer(ALLOWED.sub("", line).replace("_", " ")):
                    instead = next(text for word, text in INSTEAD.items()
                                   if re.fullmatch(word, match.group(), re.I))
                    wrong.add(f"{path}:{number}: '{match.group()}': {instead}")
    return wrong


CHECKS = (no_word_of_a_private_language,)

if __name__ == "__main__":
    for found in sorted(no_word_of_a_private_language()):
        print(found)
