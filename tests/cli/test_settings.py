"""A wrong setting is told where a person sees it: by run, by check --config, and by check of a process."""

import subprocess

import pytest

from observed import LIBRARY, PYTHON, mcpool
from support import preloaded

FORMS = "is not PORT, IP, IP:PORT, [V6]:PORT, IP/BITS:PORT, localhost:PORT or *; other names are not looked up"
WRONG = [
    ("--servers", "memcached.internal:31211", f"'memcached.internal:31211' {FORMS}"),
    ("--servers", "11211,::1:11211", f"'::1:11211' {FORMS}"),
    ("--servers", "11211,", "'11211,' has an empty item"),
    ("--servers", "/run/memcached.sock", "Unix sockets are not pooled"),
    ("--max-idle", "0", "'0' is not a whole number from 1 to 10000"),
    ("--max-idle-total", "10001", "'10001' is not a whole number from 1 to 10000"),
    ("--idle-timeout", "5x", "'5x' is not a time from 1ms to 168h, such as 90s or 5m"),
    ("--max-lifetime", "0", "'0' is not a time from 1ms to 168h, such as 90s or 5m"),
    ("--keepalive", "2h", "'2h' is not off or a time from 1s to 1h, such as 15s or 2m"),
    ("--deepbind", "/a.so", "'/a.so' is not a list of file names without directories"),
    ("--log", "x" * 5000, f"'{'x' * 44}...' is not stderr or a path that can be used here"),
    ("--log-level", "loud", "'loud' is not error, warning, info or debug"),
    ("--log-level", "\033[2J\u00e4", "'?[2J??' is not error, warning, info or debug"),
]


def environment(**variables):
    return preloaded(None, None, **{"MCPOOL_LIBRARY": LIBRARY, **variables})


def run(*arguments, **variables):
    return mcpool("run", *arguments, environment=environment(**variables))


# mcpool run.

@pytest.mark.parametrize("option, value, problem", WRONG)
def test_run_refuses_a_wrong_option(option, value, problem):
    done = run(option, value, "echo", "ran")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"mcpool: run: {option}: {problem}\n"


@pytest.mark.parametrize("option, value", [
    ("--servers", "localhost:31211"), ("--servers", "127.0.0.1"), ("--servers", "31211, 31212"),
    ("--servers", "::1"), ("--servers", ""), ("--log", "stderr"), ("--log", ""), ("--max-idle", "10000"),
    ("--deepbind", ""), ("--log-level", "DEBUG")])
def test_run_passes_a_right_option_on(option, value):
    done = run(option, value, "echo", "ran")
    assert (done.returncode, done.stdout) == (0, "ran\n")


def test_run_tells_of_wrong_variables_and_runs():
    done = run("sh", "-c", "echo $MCPOOL_MAX_IDLE", MCPOOL_MAX_IDLE="many", MCPOOL_NONSENSE="1")
    assert (done.returncode, done.stdout) == (0, "many\n")
    assert sorted(done.stderr.splitlines()) == [
        "mcpool: MCPOOL_MAX_IDLE: bad value, the default is used: 'many' is not a whole number from 1 "
        "to 10000",
        "mcpool: MCPOOL_NONSENSE: no such variable"]


def test_a_right_option_covers_a_wrong_variable():
    done = run("--max-idle", "3", "true", MCPOOL_MAX_IDLE="many")
    assert (done.returncode, done.stderr) == (0, "")


def test_strict_refuses_wrong_variables():
    done = run("--strict", "echo", "ran", MCPOOL_IDLE_TIMEOUT="soon")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == ("mcpool: MCPOOL_IDLE_TIMEOUT: 'soon' is not a time from 1ms to 168h, such as 90s or "
                           "5m; not run (--strict)\n")


def test_strict_refuses_a_missing_library():
    for arguments, code, end in ([], 0, "running without it"), (["--strict"], 126, "not run (--strict)"):
        done = run(*arguments, "echo", "ran", MCPOOL_LIBRARY="/missing/libmcpool.so")
        assert (done.returncode, done.stdout) == (code, "ran\n" if code == 0 else "")
        assert done.stderr == f"mcpool: /missing/libmcpool.so: No such file or directory; {end}\n"


def test_strict_refuses_a_missing_library_that_is_preloaded():
    """The loader complains as well, of mcpool itself and of the program."""
    for arguments, code, end in ([], 0, "running without it"), (["--strict"], 126, "not run (--strict)"):
        done = run(*arguments, "echo", "ran", LD_PRELOAD="libm.so.6:/missing/libmcpool.so libdl.so.2")
        assert (done.returncode, done.stdout) == (code, "ran\n" if code == 0 else "")
        assert f"mcpool: /missing/libmcpool.so: No such file or directory; {end}\n" in done.stderr


def test_strict_runs_when_all_is_right():
    done = run("--strict", "--servers", "localhost", "sh", "-c", "echo $LD_PRELOAD; exit 3")
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{LIBRARY}\n", "")


def test_the_library_prints_nothing():
    done = subprocess.run(["true"], env=preloaded(LIBRARY, "nonsense", MCPOOL_MAX_IDLE="0"),
                          capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


# mcpool check --config.

def config(**variables):
    return mcpool("check", "--config", environment=environment(**variables))


def test_config_of_a_right_environment():
    done = config(MCPOOL_SERVERS="localhost, !5", MCPOOL_IDLE_TIMEOUT="1500ms",
                  MCPOOL_MAX_LIFETIME="7200s", MCPOOL_MAX_IDLE="7")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "pools: 127.0.0.1:11211, [::1]:11211, !5",
        "keeps at most: 7 connections for each server, 256 in all; 1500ms idle, 2h old",
        "yes: every MCPOOL_ variable is right"]


def test_config_of_a_wrong_environment():
    done = config(MCPOOL_SERVERS="host:5", MCPOOL_LOG_LEVEL="loud")
    assert done.returncode == 1
    assert done.stdout.splitlines()[0] == "pools: 11211"
    assert sorted(done.stdout.splitlines()[2:]) == [
        "no: MCPOOL_LOG_LEVEL: bad value, the default is used: 'loud' is not error, warning, info or debug",
        f"no: MCPOOL_SERVERS: bad value, the default is used: 'host:5' {FORMS}"]


@pytest.mark.parametrize("rule", [
    "11211", "*", "!*", "10.0.0.0/8:5", "0.0.0.0/0:5", "[fd00::/8]:5", "[::1]:5", "10.0.0.1:5",
    "[::ffff:0.0.0.0/95]:5"])
def test_rules_are_shown_as_they_are_written(rule):
    shown = config(MCPOOL_SERVERS=f"1,{rule}").stdout.splitlines()[0]
    assert shown == f"pools: 1, {rule}"


@pytest.mark.parametrize("variables, end", [
    ({"MCPOOL_SERVERS": "/run/m.sock"}, "pools: no server"),
    ({"MCPOOL_DISABLE": "on"}, "pools: 11211 (nothing now: MCPOOL_DISABLE is on)"),
    ({"MCPOOL_DRY_RUN": "on"}, "pools: 11211 (only counted: MCPOOL_DRY_RUN is on)"),
    ({"MCPOOL_DISABLE": "off"}, "pools: 11211")])
def test_config_says_when_nothing_is_pooled(variables, end):
    assert config(**variables).stdout.splitlines()[0] == end


@pytest.mark.parametrize("arguments", [["--config", "true"], ["--config=x"]])
def test_config_takes_no_program(arguments):
    assert mcpool("check", *arguments).returncode == 2


# mcpool check of a process.

def settings_of(script, variables, library=LIBRARY):
    """What the command says of a process that has run SCRIPT."""
    process = subprocess.Popen([PYTHON, "-c", f"{script}\nprint('ready', flush=True)\ninput()"],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                               env={**preloaded(library, "11211"), **variables})
    with process:
        assert process.stdout.readline() == "ready\n"
        done = mcpool("check", process.pid)
        process.communicate("\n")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_process_tells_its_rules_and_what_it_rejected():
    shown = settings_of("", {"MCPOOL_SERVERS": "localhost:31211, 10.0.0.0/8", "MCPOOL_MAX_IDLE": "0",
                             "MCPOOL_LOG_LEVEL": "\033]0;title\007", "MCPOOL_NONSENSE": "1"})
    assert "pools: 127.0.0.1:31211, [::1]:31211, 10.0.0.0/8:11211\n" in shown
    assert ("note: MCPOOL_MAX_IDLE: bad value, the default is used: '0' is not a whole number from 1 to "
            "10000\n") in shown
    assert "'?]0;title?' is not error" in shown
    assert "note: MCPOOL_NONSENSE: no such variable\n" in shown
    assert "may be wrong" not in shown


def test_process_that_changed_its_variables_later():
    """The library read them at the start."""
    shown = settings_of("import os; os.environ['MCPOOL_SERVERS'] = '5'", {"MCPOOL_SERVERS": "6"})
    assert "pools: 6\n" in shown


# As setproctitle does, which nginx, php-fpm and PostgreSQL have of their own.
OVERWRITE = """
import ctypes
with open("/proc/self/stat") as file:
    start, end = map(int, file.read().rsplit(")", 1)[1].split()[47:49])
ctypes.memset(start, ord("t"), end - start - 1)
"""


def test_process_that_has_overwritten_its_environment():
    shown = settings_of(OVERWRITE, {"MCPOOL_SERVERS": "31211"})
    assert "note: these settings may be wrong" in shown


def test_localhost_is_pooled(server, host):
    client = host.client(MCPOOL_SERVERS=f"11211, localhost:{server.port}").turns(3)
    shown = mcpool("check", client.pid, environment=preloaded(None, None, MCPOOL_STATS=str(host.stats)))
    assert f"pools: 11211, 127.0.0.1:{server.port}, [::1]:{server.port}\n" in shown.stdout
    assert f"    127.0.0.1:{server.port}: 2 of 3 connects reused\n" in shown.stdout


def test_nothing_is_told_of_a_right_environment():
    shown = settings_of("", {})
    assert "pools: 11211\n" in shown
    for words in ("bad value", "no such variable", "may be wrong", "unknown"):
        assert words not in shown
