"""The documents are compared with the source: they have everything that is there, as it is.

The manual of the library is looked at by tests/cli as well.
"""

import glob
import os
import re

import pytest

from conftest import TOP, read_makefiles

DEFAULT_OFF = {"LOG": "off", "DRY_RUN": "off", "DISABLE": "off"}
# Variables of the command only; its manual has them.
OF_THE_COMMAND = {"LIBRARY"}


def read(*path):
    with open(os.path.join(TOP, *path), encoding="utf-8") as file:
        return file.read()


def defined(name):
    """The string that a header of the library defines as NAME."""
    for header in glob.glob(os.path.join(TOP, "shim", "*", "*.h")):
        if found := re.search(rf'^#define {name}\s+"(.*)"$', read(header), re.M):
            return found.group(1)
    raise KeyError(name)


def variables():
    """The variables in variables.def and their defaults, as the documents write them."""
    rows = re.findall(r'^VARIABLE\((\w+), read_\w+, (?:"([^"]*)"|(\w+)),', read("shim/config/variables.def"), re.M)
    return {name: DEFAULT_OFF.get(name, text or (macro and defined(macro)))
            for name, text, macro in rows}


def states():
    [enum] = re.findall(r"enum conn_state {(.*?)};", read("shim/conn/conn.h"), re.S)
    return re.findall(r"\bCONN_(\w+),", enum)


def arrows():
    """The arrows of the picture: (from, to, files)."""
    lines = re.findall(r"^    (\w+) -> (\w+) \[(.*)\]$", read("shim/life.dot"), re.M)
    return [(start, end, set(re.findall(r"\w+\.c\b", attributes.replace("\\n", " "))))
            for start, end, attributes in lines]


def moves():
    """STATE -> the files that move a connection there, as far as the call names the state."""
    found = {}
    for path in glob.glob(os.path.join(TOP, "shim", "*", "*.c")):
        for state in re.findall(r"\bconn_move(?:_from)?\([^;]*?, CONN_(\w+)\);", read(path)):
            found.setdefault(state, set()).add(os.path.basename(path))
    return found


# Variables and reasons.

def test_readme_has_every_variable_and_its_default():
    rows = re.findall(r"^\| `MCPOOL_(\w+)` \| `?([^`|]*?)`? \|", read("README.md"), re.M)
    assert len(rows) >= 10
    wanted = {name: text for name, text in variables().items() if name not in OF_THE_COMMAND}
    assert dict(rows) == wanted


def test_manual_has_every_variable_and_its_default():
    """A variable without a default in the source has none in the manual."""
    entries = re.findall(r'^\.BR MCPOOL_(\w+) " \(default: ([^;)]*)', read("shim/man/libmcpool.7"),
                         re.M)
    documented = {name: default for name, default in entries}
    assert set(documented) == set(variables())
    for name, default in variables().items():
        assert documented[name] in (default, "none"), name


def test_manual_has_every_reason():
    page = read("shim/man/libmcpool.7").split("\n.SH REASONS\n")[1].split("\n.SH ")[0]
    reasons = re.findall(r'^REASON\((\w+),\s*"([^"]*)"\)', read("shim/base/reasons.def"), re.M)
    assert len(reasons) >= 40
    assert re.findall(r"^\.TP\n\.B ([A-Z_]+)\n(.*)$", page, re.M) == reasons


# The entries of the manual's list, as it has them: the number, how its text begins, and what the source defines.
NUMBERS = [
    ("16384", "connections that are open or idle in one process", {"CONN_MAX": "16384", "FDMAP_SIZE": "65536"}),
    ("512", "servers that one process knows", {"POOL_ENDPOINTS": "512"}),
    ("4", "epoll sets", {"CONN_EPOLL_REGS": "4"}),
    ("128", "connections that one", {"POLLERS_MAX": "128"}),
    ("64", "runs of like requests", {"WIRE_RUNS": "64"}),
    ("8", "sockets kept for the next", {"SPARE_MAX": "8"}),
    ("8", "queues that a family has", {"FAMILY_QUEUES": "8"}),
    ("32", "families that a process makes", {"MADE_MOST": "32"}),
    ("25 ms", "after which an idle connection is given to the family", {"SHARING_QUIET": "((msec_t)25)"}),
    ("64", "idle connections in the queues of all families", {"USUAL_FD_LIMIT": "1024", "PART_OF_LIMIT": "16"}),
    ("3", "connections in a queue that one", {"TAKE_LOOKS": "3"}),
    ("10 ms", "for which a call waits for another thread", {"LOCK_PATIENCE_MS": "10"}),
    ("10 s", "in which outstanding replies must come", {"POOL_DRAIN_TIMEOUT": "((msec_t)10 * 1000)"}),
    ("10 s", "after which a connection that was not needed is closed", {"POOL_LOW_WATER": "((msec_t)10 * 1000)"}),
    ("1 s", "between two looks", {"POOL_CUSTODY_PERIOD": "((msec_t)1000)"}),
    ("1 s", "for which a thread that did not wait for a reply", {"POOL_SPARED": "((msec_t)1000)"}),
    ("1 MiB", "of outstanding replies that are drained", {"DRAINED_MOST": "((size_t)1 << 20)"}),
    ("64 KiB", "of outstanding replies that one", {"DRAIN_READS": "512", "DRAIN_READ_SIZE": "128"}),
    ("60 s", "after which a server that did not know", {"MN_AGAIN_AFTER": "((msec_t)60 * 1000)"}),
    ("64", "items in", {"CONFIG_MAX_RULES": "64"}),
    ("a quarter", "of", {}),            # tests/interop/test_fd_limit.py
    ("1600 bytes", "of the stack", {}),  # tests/interop/test_stack.py
]


def test_manual_has_every_number():
    page = read("shim/man/libmcpool.7").split("\n.SH NUMBERS\n")[1].split("\n.SH ")[0]
    entries = re.findall(r"^\.TP\n\.B (.*)\n(.*)$", page, re.M)
    assert [number for number, _ in entries] == [number for number, _, _ in NUMBERS]
    for (_, text), (_, begins, _) in zip(entries, NUMBERS):
        assert text.startswith(begins)


@pytest.mark.parametrize("name, value", [pair for *_, defined in NUMBERS for pair in defined.items()])
def test_source_has_every_number(name, value):
    source = "".join(read(path) for path in glob.glob(os.path.join(TOP, "shim", "**", "*.[ch]"),
                                                      recursive=True))
    assert re.findall(rf"^#define {name}\s+(.*?)(?: /\*.*)?$", source, re.M) == [value]


# The picture.

def test_picture_has_every_state():
    nodes = re.findall(r"^    ([A-Z_]+)(?: \[.*\])?$", read("shim/life.dot"), re.M)
    assert len(states()) >= 10
    assert sorted(nodes) == sorted(states())


def test_picture_has_every_move():
    """The arrows into each state are from the files that move connections there, and from no others."""
    drawn = {}
    for _, end, files in arrows():
        drawn.setdefault(end, set()).update(files)
    assert set(drawn) == set(states())
    for state, files in moves().items():
        assert drawn[state] == files, state


def test_every_state_can_be_left():
    assert {start for start, _, _ in arrows()} == set(states())


def test_picture_is_drawn_from_its_text():
    """Run `make docs` when this fails."""
    titles = re.findall(r"<title>([\w&#;]+)</title>", read("shim/life.svg"))
    drawn = {tuple(title.replace("&#45;&gt;", " ").split()) for title in titles}
    assert drawn == ({("life",)} | {(state,) for state in states()} |
                     {(start, end) for start, end, _ in arrows()})


# The README.

def test_every_path_of_the_readme_is_followed():
    """test_paths.py runs these blocks, which it finds by their titles."""
    section = read("README.md").split("\n## Switch it on\n")[1].split("\n## ")[0]
    titles = re.findall(r"^\*\*(.*?)\*\*", section, re.M)
    followed = re.findall(r'\b(?:readme_section|shell)\("(.*?)"\)', read("tests/package/test_paths.py"))
    assert len(titles) >= 7
    assert set(titles) == set(followed)


def test_readme_is_short():
    assert len(read("README.md").splitlines()) <= 200


def test_readme_has_what_was_measured():
    """When this fails after `make bench` and bench/publish.py, update the figures in the README."""
    [measured] = re.findall(r"^\| gunicorn, gevent, python-memcached  .*?\n\n", read("bench/RESULTS.md"),
                            re.M | re.S)
    rate = dict(re.findall(r"^\| (.+?) +\| +\d+ \| +([\d.]+) \|", measured, re.M))
    rows = re.findall(r"^\| (.+?) \| [^|]+ \| ([\d., ]+) \|", read("README.md"), re.M)
    assert [text for _, text in rows] == [
        rate["shim"],
        f"{rate['rewritten: one connection kept open']}, {rate['rewritten: 20 connections kept open']}",
        rate["rewritten: pymemcache PooledClient"], rate["through twemproxy"]]
    cycle = dict(re.findall(r"^\| socket, connect, get, close: (.+?) +\| +([\d.]+) \|",
                            read("bench/RESULTS.md"), re.M))
    said = re.search(r"takes ([\d.]+) times as long as a get on an open connection, without\s+it ([\d.]+)",
                     read("README.md"))
    assert said.groups() == (cycle["shim"], cycle["no shim"])


@pytest.mark.parametrize("path, setting", [
    ("docker/Dockerfile", "\nENV MCPOOL_SHARE=always\n"),
    ("kubernetes/myapp.yaml", "\n            - {name: MCPOOL_SHARE, value: always}\n")])
def test_containers_share(path, setting):
    """Each has a seccomp filter, behind which MCPOOL_SHARE=on shares nothing."""
    assert setting in read("packaging", "examples", path)


# The map, versions, links.

def test_map_has_every_file():
    [table] = re.findall(r"## Source map\n(.*?)\n## ", read("CONTRIBUTING.md"), re.S)
    for path in (path for folder in ("hooks", "pool", "conn", "stats", "config", "base")
                 for path in glob.glob(os.path.join(TOP, "shim", folder, "*.c"))):
        assert f"{os.path.basename(path)}`" in table, path
    for path in glob.glob(os.path.join(TOP, "tests", "*", "")):
        name = os.path.basename(os.path.dirname(path))
        assert name.startswith(("_", ".")) or f"`{name}`" in table, path
        assert name.startswith(("_", ".")) or f"`{name}`" in read("tests/README.md"), path


def test_versions_agree():
    [version] = re.findall(r"^VERSION := (.*)$", read("Makefile"), re.M)
    assert re.search(r"^libmcpool \((.*)\)", read("packaging/debian/changelog")).group(1) == version
    assert f"\nVersion:        {version}\n" in read("packaging/rpm/libmcpool.spec")
    assert re.search(r"^## \[([\d.]+)\]", read("CHANGELOG.md"), re.M).group(1) == version
    for page in glob.glob(os.path.join(TOP, "shim", "man", "*")):
        assert f'"libmcpool {version}"' in read(page), page


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "SECURITY.md", "bench/README.md",
                                  "shim/architecture.md", "tests/README.md",
                                  "tests/clients/README.md"])
def test_links_lead_somewhere(name):
    text = read(name)
    links = re.findall(r"\]\(([^)#:]*)(?:#([\w-]+))?\)", text)
    for target, heading in links:
        path = os.path.join(os.path.dirname(name), target) if target else name
        assert os.path.exists(os.path.join(TOP, path)), target
        if heading:
            headings = re.findall(r"^#+ (.*)$", read(path), re.M)
            assert heading in [line.lower().replace(" ", "-") for line in headings], heading


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_make_targets_exist(name):
    targets = re.findall(r"^([a-z][a-z0-9_-]+):", read_makefiles(), re.M)
    for target in re.findall(r"`make ([a-z][a-z0-9_-]+)", read(name)):
        assert target in targets, target
