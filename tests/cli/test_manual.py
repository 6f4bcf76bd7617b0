"""The manuals have each variable, counter, reason, option and subcommand; and completion."""

import glob
import os
import re
import shutil
import subprocess

import pytest

from observed import COMMAND, SHIM, mcpool

PAGES = sorted(os.path.basename(path) for path in glob.glob(os.path.join(SHIM, "man", "*.[17]")))
SWITCHES = ["off", "on", "dry", "flush"]
SUBCOMMANDS = ["run", "check", "stat", "top", "doctor", "metrics", "explain", *SWITCHES]


def read(*path):
    with open(os.path.join(SHIM, *path), encoding="utf-8") as file:
        return file.read()


def variables():
    return re.findall(r'^VARIABLE\((\w+), read_', read("config", "variables.def"), re.M)


def reasons():
    return re.findall(r'^REASON\((\w+),\s*"([^"]*)"\)', read("base", "reasons.def"), re.M)


def share_states():
    return re.findall(r'^SHARE\((\w+), "([^"]*)"\)', read("stats", "share.def"), re.M)


def counters():
    return re.findall(r'^STAT\(\w+, (\w+), "([^"]*)"\)', read("stats", "stats.def"), re.M)


def section(title):
    return read("man", "libmcpool.7").split(f".SH {title}\n")[1].split("\n.SH ")[0]


def test_every_variable_is_documented():
    assert len(variables()) >= 12
    for name in variables():
        assert re.search(rf'^\.BR MCPOOL_{name} " \(default', section("ENVIRONMENT"), re.M), name


def test_every_variable_is_in_the_readme():
    with open(os.path.join(SHIM, "..", "README.md"), encoding="utf-8") as file:
        documented = re.findall(r"^\| `MCPOOL_(\w+)`", file.read(), re.M)
    for name in set(variables()) - {"LIBRARY"}:
        assert any(name in entry for entry in documented), name


def test_every_reason_is_documented():
    documented = re.findall(r"^\.TP\n\.B ([A-Z_]+)\n(.*)$", section("REASONS"), re.M)
    assert len(reasons()) >= 40
    assert documented == reasons()


def test_every_counter_is_documented():
    documented = re.findall(r"^\.TP\n\.B ([a-z_]+)\n(.*)$", section("COUNTERS"), re.M)
    assert len(counters()) >= 12
    assert documented == counters()


def test_every_reason_is_explained():
    explained = re.findall(r'^EXPLAIN\((\w+),\s*"([^"]{20,})",\s*"([^"]{10,})"\)',
                           read("cli", "explain.def"), re.M)
    assert [name for name, _, _ in explained] == [name for name, _ in reasons()]
    explained = re.findall(r'^EXPLAIN_SHARE\((\w+),\s*"([^"]{20,})",\s*"([^"]{10,})"\)',
                           read("cli", "explain_share.def"), re.M)
    assert [name for name, _, _ in explained] == [name for name, _ in share_states()]


def test_explain():
    listed = mcpool("explain").stdout
    entries = reasons() + share_states()
    assert [line.split()[0] for line in listed.splitlines()] == [name for name, _ in entries]
    for name, text in entries:
        done = mcpool("explain", name.lower())
        assert done.returncode == 0 and f"\n\n{name}: {text}\n\n  " in "\n\n" + done.stdout
        assert max(len(line) for line in done.stdout.splitlines() if line[:2] == "  ") <= 78
        assert done.stdout.count("\n\n") == (5 if [entry[0] for entry in entries].count(name) == 2 else 2)
    assert mcpool("explain", "TLS", "QUIT").stdout.count("\n\n") == 5
    done = mcpool("explain", "NONSENSE")
    assert done.returncode == 1 and "no such reason: NONSENSE" in done.stderr


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_every_subcommand_has_help_and_a_page(name):
    done = mcpool(name, "--help")
    page = "switch" if name in SWITCHES else name
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"usage: mcpool {name} ")
    assert f"See mcpool-{page}(1)" in done.stdout or f"see mcpool-{page}(1)" in done.stdout.lower()
    assert mcpool("help", name).stdout == mcpool(name, "-h").stdout == done.stdout
    assert f"mcpool-{page}.1" in PAGES
    assert re.search(rf"^  {name} ", mcpool("help").stdout, re.M)
    for option in re.findall(r"^  (--[a-z-]+)", done.stdout, re.M):
        assert option.replace("-", "\\-") in read("man", f"mcpool-{page}.1"), option


@pytest.mark.parametrize("arguments", [
    ["check"], ["check", "--nonsense"], ["stat", "x"], ["stat", "0"], ["stat", "--watch=x"],
    ["stat", "--watch=0"], ["doctor", "x"], ["doctor", "--nonsense"], ["top", "1"], ["top", "--delay", "0"], ["top", "--delay", "1x"],
    ["metrics", "x"], ["metrics", "--output"], ["explain", "--nonsense"]])
def test_usage_errors(arguments):
    done = mcpool(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"try `mcpool {arguments[0]} --help`" in done.stderr
    if arguments == ["stat", "x"]:
        assert done.stderr.startswith("mcpool: x: not a process ID\n")


@pytest.mark.parametrize("arguments", [["stat", "--json"], ["metrics"], ["explain"], ["stat", "--help"]])
def test_output_that_cannot_be_written(arguments):
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, timeout=60,
                              check=False)
    assert done.returncode == 1
    assert done.stderr


@pytest.mark.parametrize("page", PAGES)
def test_man_pages_are_sound(page):
    if not shutil.which("man"):
        pytest.skip("no man here")
    done = subprocess.run(["man", "-l", "--warnings", "-Tutf8", os.path.join(SHIM, "man", page)],
                          capture_output=True, timeout=60, check=False,
                          env=dict(os.environ, LC_ALL="C.UTF-8", MANPAGER="cat"))
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout


# Completion.

def completed(*words):
    """The completions that bash offers for the last of WORDS."""
    script = f"""
        PATH={os.path.dirname(COMMAND)}:$PATH
        source {os.path.join(SHIM, "cli", "completion", "mcpool.bash")}
        COMP_WORDS=("$@")
        COMP_CWORD=$(($# - 1))
        _mcpool
        printf '%s\\n' "${{COMPREPLY[@]}}" """
    done = subprocess.run(["bash", "-euc", script, "bash", "mcpool", *words], capture_output=True,
                          text=True, timeout=60, check=False)
    assert done.stderr == ""
    return done.stdout.split()


def test_completion_of_subcommands():
    assert completed("") == SUBCOMMANDS + ["version", "help"]
    assert completed("c") == ["check"]
    assert completed("help", "") == SUBCOMMANDS and completed("help", "e") == ["explain"]


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_completion_of_options(name):
    options = re.findall(r"^  (--[a-z-]+)", mcpool(name, "--help").stdout, re.M)
    assert set(completed(name, "--")) == {*options, "--help"}


def test_completion_of_values():
    assert completed("explain", "NO_F") == ["NO_FENCE"]
    assert completed("explain", "no_f") == ["no_fence"]
    assert len(completed("explain", "")) == len(reasons()) + len(share_states()) + 1
    assert completed("run", "--log-level", "w") == ["warning"]
    assert completed("run", "--share", "a") == ["always"]
    assert completed("run", "--servers", "") == []
    assert "cat" in completed("run", "ca") and "cat" in completed("check", "ca")


def test_completion_of_processes(host, monkeypatch):
    client = host.client().turns(1)
    monkeypatch.setenv("MCPOOL_STATS", str(host.stats))
    assert completed("stat", "") == completed("doctor", "") == [str(client.pid)]
    assert completed("check", str(client.pid)[0]) == [str(client.pid)]
    assert completed("off", "") == [str(client.pid)]


def test_completion_for_zsh_is_sound():
    if not shutil.which("zsh"):
        pytest.skip("no zsh here")
    path = os.path.join(SHIM, "cli", "completion", "_mcpool")
    done = subprocess.run(["zsh", "-n", path], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    text = read("cli", "completion", "_mcpool")
    for name in SUBCOMMANDS:
        assert f"'{name}:" in text
        for option in re.findall(r"^  (--[a-z-]+)", mcpool(name, "--help").stdout, re.M):
            assert f"{option}[" in text.split(f"    {name})")[1].split(";;")[0].replace("=-[", "[")
