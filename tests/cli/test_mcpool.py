"""mcpool run: it becomes the program it is given, and adds nothing but the preload.

MCPOOL_COMMAND names another binary than the one of the build.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
from support import BUILD, LIBRARY, PYTHON, preloaded

SHIM = os.path.join(HERE, "..", "..", "shim")
COMMAND = os.path.abspath(os.environ.get("MCPOOL_COMMAND", os.path.join(BUILD, "mcpool")))
OPTIONS = {
    "--servers": "MCPOOL_SERVERS",
    "--max-idle": "MCPOOL_MAX_IDLE",
    "--max-idle-total": "MCPOOL_MAX_IDLE_TOTAL",
    "--idle-timeout": "MCPOOL_IDLE_TIMEOUT",
    "--max-lifetime": "MCPOOL_MAX_LIFETIME",
    "--keepalive": "MCPOOL_KEEPALIVE",
    "--deepbind": "MCPOOL_DEEPBIND",
    "--log": "MCPOOL_LOG",
    "--log-level": "MCPOOL_LOG_LEVEL",
}
# Values for them that are right, and odd.
VALUES = {
    "--servers": " 10.0.0.0/8:5 , !localhost",
    "--max-idle": "0007",
    "--max-idle-total": "10000",
    "--idle-timeout": "90",
    "--max-lifetime": "168h",
    "--keepalive": "off",
    "--deepbind": "odd value, with blanks",
    "--log": "odd value, with blanks",
    "--log-level": "WARNing",
}
PRINT_ENVIRONMENT = [PYTHON, "-c", "import json, os; print(json.dumps(dict(os.environ)))"]
# Harmless libraries to preload, which every process has anyway.
OTHER = "libm.so.6"
ANOTHER = "libdl.so.2"


def mcpool(*arguments, command=COMMAND, **more):
    """Runs the command to its end, in an environment without traces of the test's own."""
    environment = preloaded(None, None, MCPOOL_LIBRARY=LIBRARY)
    for name, value in more.pop("environment", {}).items():
        environment.pop(name, None)
        if value is not None:
            environment[name] = value
    return subprocess.run([command, *arguments], env=environment, capture_output=True, text=True,
                          timeout=60, check=False, **more)


def environment_under(*arguments, **more):
    """The environment that a command run with ARGUMENTS finds."""
    done = mcpool("run", *arguments, *PRINT_ENVIRONMENT, **more)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def one_line(text):
    return text.endswith("\n") and text.count("\n") == 1


# The program it becomes.

def test_exit_code_is_the_programs():
    for code in (0, 1, 42, 126, 255):
        done = mcpool("run", "--", "sh", "-c", f"exit {code}")
        assert (done.returncode, done.stdout, done.stderr) == (code, "", "")


def test_process_stays_the_same():
    process = subprocess.Popen([COMMAND, "run", "sh", "-c", "echo $$"], stdout=subprocess.PIPE,
                               env=preloaded(None, None, MCPOOL_LIBRARY=LIBRARY))
    output, _ = process.communicate(timeout=60)
    assert int(output) == process.pid


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL, signal.SIGSEGV])
def test_signals_reach_the_program(number):
    # A shell starts background jobs with SIGINT ignored, and this test may be one.
    with subprocess.Popen([COMMAND, "run", "sh", "-c", "echo ready; exec sleep 60"],
                          stdout=subprocess.PIPE,
                          preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
                          env=preloaded(None, None, MCPOOL_LIBRARY=LIBRARY)) as process:
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(number)
        assert process.wait(60) == -number


def test_signal_dispositions_are_kept():
    show = ["grep", "^Sig[IB]", "/proc/self/status"]
    script = f"trap '' HUP USR1; {' '.join(show)}; exec {COMMAND} run -- {' '.join(show)}"
    done = subprocess.run(["sh", "-c", script], stdout=subprocess.PIPE, text=True, timeout=60,
                          check=True, env=preloaded(None, None, MCPOOL_LIBRARY=LIBRARY))
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert lines[:2] == lines[2:]
    assert not re.fullmatch(r"SigIgn:\s0+", lines[1])


def test_standard_streams_are_the_programs():
    done = mcpool("run", "sh", "-c", "cat; echo error >&2", input="through")
    assert (done.stdout, done.stderr) == ("through", "error\n")


def test_descriptors_are_the_same():
    show = [PYTHON, "-c", "import os; print(sorted(os.listdir('/proc/self/fd')))"]
    plain = subprocess.run(show, stdout=subprocess.PIPE, text=True, timeout=60, check=True)
    environment = preloaded(None, None, MCPOOL_LIBRARY=LIBRARY)
    under = subprocess.run([COMMAND, "run", *show], stdout=subprocess.PIPE, text=True, timeout=60,
                           check=True, env=environment)
    assert under.stdout == plain.stdout


def test_arguments_are_passed_on_untouched():
    arguments = ["", "a b", "--servers", "-v", "--", "*", "$HOME"]
    done = mcpool("run", PYTHON, "-c", "import json, sys; print(json.dumps(sys.argv[1:]))", *arguments)
    assert json.loads(done.stdout) == arguments


def test_a_program_with_a_dash_needs_two(tmp_path):
    program = tmp_path / "-odd"
    program.write_text("#!/bin/sh\necho odd\n")
    program.chmod(0o755)
    path = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
    assert mcpool("run", "--", "-odd", environment=path).stdout == "odd\n"
    assert mcpool("run", "-odd", environment=path).returncode == 2


# Programs that cannot be run.

def test_missing_program():
    for name in ("no-such-program", "/no/such/program"):
        done = mcpool("run", name)
        assert done.returncode == 127
        assert one_line(done.stderr) and name in done.stderr


def test_program_that_may_not_be_run(tmp_path):
    text = tmp_path / "text"
    text.write_text("no program")
    text.chmod(0o644)
    for path in (text, tmp_path):
        done = mcpool("run", str(path))
        assert done.returncode == 126
        assert one_line(done.stderr) and str(path) in done.stderr


# LD_PRELOAD.

def test_library_is_preloaded():
    maps = mcpool("run", "cat", "/proc/self/maps")
    assert os.path.realpath(LIBRARY) in maps.stdout
    assert maps.stderr == ""


@pytest.mark.parametrize("before, after", [
    (None, LIBRARY),
    ("", LIBRARY),
    (OTHER, f"{LIBRARY}:{OTHER}"),
    (f"{OTHER}:{ANOTHER}", f"{LIBRARY}:{OTHER}:{ANOTHER}"),
    (f"{OTHER} {ANOTHER}", f"{LIBRARY}:{OTHER} {ANOTHER}"),
])
def test_other_preloads_are_kept(before, after):
    assert environment_under(environment={"LD_PRELOAD": before})["LD_PRELOAD"] == after


@pytest.mark.parametrize("preload", [
    LIBRARY, f"{OTHER}:{LIBRARY}", f"{LIBRARY}:{OTHER}", f"{OTHER} {LIBRARY} {ANOTHER}",
])
def test_nothing_is_preloaded_twice(preload):
    found = environment_under(environment={"LD_PRELOAD": preload})
    assert found["LD_PRELOAD"] == preload


def test_bare_name_counts_as_preloaded(tmp_path):
    shutil.copy(LIBRARY, tmp_path)
    before = {"LD_PRELOAD": "libmcpool.so", "LD_LIBRARY_PATH": str(tmp_path)}
    assert environment_under(environment=before)["LD_PRELOAD"] == "libmcpool.so"


def test_similar_names_are_not_the_library():
    for name in ("libmcpool.so.1", "notlibmcpool.so"):
        done = mcpool("run", "sh", "-c", "echo $LD_PRELOAD", environment={"LD_PRELOAD": name})
        assert done.stdout == f"{LIBRARY}:{name}\n"


def test_nested_runs_change_nothing():
    once = environment_under()
    twice = environment_under(COMMAND, "run", COMMAND, "run", "--")
    assert once == twice


# Where the library is.

@pytest.fixture
def alone(tmp_path):
    """A copy of the command in a directory of its own."""
    return shutil.copy(COMMAND, tmp_path / "mcpool")


def test_library_beside_the_command_is_found(alone, tmp_path):
    library = shutil.copy(LIBRARY, tmp_path / "libmcpool.so")
    found = environment_under(command=alone, environment={"MCPOOL_LIBRARY": None})
    assert found["LD_PRELOAD"] == str(library)


def test_library_beside_a_linked_command_is_found(alone, tmp_path):
    library = shutil.copy(LIBRARY, tmp_path / "libmcpool.so")
    os.mkdir(tmp_path / "bin")
    link = tmp_path / "bin" / "mcpool"
    link.symlink_to(alone)
    found = environment_under(command=str(link), environment={"MCPOOL_LIBRARY": ""})
    assert found["LD_PRELOAD"] == str(library)


def compiled_in(command):
    """The path of the library that COMMAND has from its build."""
    with open(command, "rb") as binary:
        return re.search(rb"\0(/[^\0]*/libmcpool\.so)\0", binary.read()).group(1).decode()


@pytest.mark.parametrize("folder", ["lib/TRIPLET", "lib64", "lib"])
def test_library_below_the_same_prefix_is_found(folder, tmp_path):
    """As `make && make install PREFIX=$HOME/.local` leaves it, however the command was started."""
    for name in ("bin", "path"):
        os.mkdir(tmp_path / name)
    command = shutil.copy(COMMAND, tmp_path / "bin" / "mcpool")
    (tmp_path / "path" / "mcpool").symlink_to(command)
    triplet = os.path.basename(os.path.dirname(compiled_in(COMMAND)))
    library = tmp_path / folder.replace("TRIPLET", triplet) / "libmcpool.so"
    os.makedirs(library.parent)
    shutil.copy(LIBRARY, library)
    for name in ("bin", "path"):
        found = environment_under(command=str(tmp_path / name / "mcpool"), environment={"MCPOOL_LIBRARY": None})
        assert found["LD_PRELOAD"] == str(library)


def test_the_folders_of_the_build_are_the_first_choice(tmp_path):
    os.mkdir(tmp_path / "bin")
    command = shutil.copy(COMMAND, tmp_path / "bin" / "mcpool")
    triplet = os.path.basename(os.path.dirname(compiled_in(COMMAND)))
    for folder in ("lib", "lib64", f"lib/{triplet}", "bin"):
        os.makedirs(tmp_path / folder, exist_ok=True)
        library = shutil.copy(LIBRARY, tmp_path / folder / "libmcpool.so")
        found = environment_under(command=command, environment={"MCPOOL_LIBRARY": None})
        assert found["LD_PRELOAD"] == str(library)


def test_variable_wins_over_the_neighbour(alone, tmp_path):
    shutil.copy(LIBRARY, tmp_path / "libmcpool.so")
    assert environment_under(command=alone)["LD_PRELOAD"] == LIBRARY


def test_relative_path_is_made_absolute():
    folder, name = os.path.split(os.path.realpath(LIBRARY))
    found = environment_under(environment={"MCPOOL_LIBRARY": f"./{name}"}, cwd=folder)
    assert found["LD_PRELOAD"] == os.path.join(folder, name)


def test_bare_name_is_left_to_the_loader(tmp_path):
    shutil.copy(LIBRARY, tmp_path)
    found = environment_under(environment={"MCPOOL_LIBRARY": "libmcpool.so",
                                           "LD_LIBRARY_PATH": str(tmp_path)})
    assert found["LD_PRELOAD"] == "libmcpool.so"


def test_installed_library_is_the_last_resort(alone):
    expected = compiled_in(alone)
    done = mcpool("run", "sh", "-c", "echo $LD_PRELOAD", command=alone,
                  environment={"MCPOOL_LIBRARY": None})
    if os.path.exists(expected):
        assert done.stdout == f"{expected}\n"
    else:
        assert done.stdout == "\n"
        assert one_line(done.stderr) and expected in done.stderr


@pytest.mark.parametrize("name", ["missing.so", "a blank.so", "a:colon.so"])
def test_program_runs_without_a_library_that_cannot_be_loaded(name, tmp_path):
    library = str(tmp_path / name)
    if name != "missing.so":
        shutil.copy(LIBRARY, library)
    done = mcpool("run", "sh", "-c", "echo ran $LD_PRELOAD",
                  environment={"MCPOOL_LIBRARY": library, "LD_PRELOAD": OTHER})
    assert (done.returncode, done.stdout) == (0, f"ran {OTHER}\n")
    assert one_line(done.stderr) and library in done.stderr


# Options.

@pytest.mark.parametrize("option", OPTIONS)
def test_options_set_variables(option, tmp_path):
    value = VALUES[option]
    for arguments in ([option, value], [f"{option}={value}"]):
        assert environment_under(*arguments, cwd=tmp_path)[OPTIONS[option]] == value


def test_dry_run_is_switched_on():
    assert environment_under("--dry-run")["MCPOOL_DRY_RUN"] == "on"


def test_only_given_options_set_variables():
    found = environment_under("--max-idle", "3", environment={"MCPOOL_SERVERS": "11300"})
    assert {name: value for name, value in found.items() if name.startswith("MCPOOL_")} == {
        "MCPOOL_LIBRARY": LIBRARY, "MCPOOL_MAX_IDLE": "3", "MCPOOL_SERVERS": "11300"}


def test_options_win_over_the_environment():
    found = environment_under("--servers", "11301", environment={"MCPOOL_SERVERS": "11300"})
    assert found["MCPOOL_SERVERS"] == "11301"


def test_options_of_a_nested_run_win():
    found = environment_under("--max-idle", "3", COMMAND, "run", "--max-idle", "4")
    assert found["MCPOOL_MAX_IDLE"] == "4"


def test_verbose_says_what_will_be_run():
    done = mcpool("run", "-v", "--servers", "11300", "echo", "hello")
    assert done.stdout == "hello\n"
    assert done.stderr == f"mcpool: LD_PRELOAD={LIBRARY} MCPOOL_SERVERS=11300 echo hello\n"


# Usage.

@pytest.mark.parametrize("arguments", [
    [], ["no-such-command"], ["-v"], ["run"], ["run", "--"], ["run", "-v"], ["run", "-x", "true"],
    ["run", "--no-such-option", "true"], ["run", "--servers"], ["run", "--dry-run=on", "true"],
])
def test_usage_errors(arguments):
    done = mcpool(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.search(r"mcpool (run --)?help", done.stderr)


@pytest.mark.parametrize("word", ["help", "--help", "-h"])
def test_help(word):
    done = mcpool(word)
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: mcpool COMMAND" in done.stdout


def test_help_of_a_command_that_is_none():
    done = mcpool("help", "nonsense")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("mcpool: no such command: nonsense\n")


def test_options_behind_the_program_are_its_own():
    assert mcpool("run", "echo", "-h", "-V").stdout == "-h -V\n"


def test_help_of_run():
    done = mcpool("run", "--help")
    assert (done.returncode, done.stderr) == (0, "")
    for option in (*OPTIONS, "--dry-run", "--strict", "-v"):
        assert re.search(rf"^  {option}\b", done.stdout, re.M), option


@pytest.mark.parametrize("word", ["version", "--version", "-V"])
def test_version(word):
    done = mcpool(word)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"mcpool \d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.parametrize("word", ["help", "version"])
def test_output_that_cannot_be_written(word):
    with open("/dev/full", "w", encoding="ascii") as full:
        done = subprocess.run([COMMAND, word], stdout=full, stderr=subprocess.PIPE, timeout=60,
                              check=False)
    assert done.returncode == 1
    assert done.stderr


# The man page.

def test_every_option_is_documented():
    with open(os.path.join(SHIM, "man", "mcpool-run.1"), encoding="utf-8") as file:
        entries = file.read().split(".TP\n")
    for option, variable in {**OPTIONS, "--dry-run": "MCPOOL_DRY_RUN"}.items():
        dashed = option.replace("-", "\\-")
        assert any(re.match(rf"\.BI? {re.escape(dashed)}[ \n]", entry) and
                   f".RB ( {variable} )" in entry for entry in entries), option
