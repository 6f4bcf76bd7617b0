"""Runs every stage of `make test` and adds up what they counted.

Usage: run.py BUILD_DIRECTORY [STAGE...]

Each stage is a command whose output ends with the count of its own test runner. The last line is
the sum; the exit code is 1 when a test failed, a stage ended badly, or a stage ran no test.
"""

import os
import re
import subprocess
import sys

PYTHON = "/usr/bin/python3"

# How the runners put it: Criterion, pytest, and the plain line of our own programs.
CRITERION = re.compile(r"Passing: (\d+) \| Failing: (\d+) \| Crashing: (\d+)")
PYTEST = re.compile(r"(\d+) (passed|failed|error)")
PYTEST_LINE = re.compile(r"\d+ (passed|failed|error).* in [\d.]+s")
PLAIN = re.compile(r"^(\d+) passed, (\d+) failed$")

# The lines that name a failed test; shown again at the end, where they are not lost in the rest.
FAILURE = re.compile(r"^\[(FAIL|----)\]|^(FAILED|ERROR|E  ) |Unexpected signal|TIMEOUT")


def runtime(name):
    """Where the compiler keeps this library."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], stdout=subprocess.PIPE, text=True,
                           check=True)
    return found.stdout.strip()


def stages(build):
    library = os.path.join(build, "libmcpool.so")
    pytest = [PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return {
        "unit": [os.path.join(build, "tests/unit"), "--jobs", "2"],
        "audit": [PYTHON, "tests/audit/audit.py", library],
        "differential": [PYTHON, "tests/differential/run.py",
                         os.path.join(build, "tests/differential")],
        "victims": [PYTHON, "tests/differential/victims.py", library,
                    os.path.join(build, "tests/victims")],
        "fuzz": [PYTHON, "tests/fuzz/run.py", os.path.join(build, "fuzz"), "10"],
        "faults": [PYTHON, "tests/faults/run.py", os.path.join(build, "faults/libmcpool.so"),
                   os.path.join(build, "faults/scenes")],
        "preload": ["tests/preload/run.sh", library, os.path.join(build, "tests/preloaded")],
        # The tests that ASan makes impossible skip themselves.
        "sanitized": ["env", "ASAN_OPTIONS=detect_leaks=0", "tests/preload/run.sh",
                      os.path.join(build, "asan/libmcpool.so"),
                      os.path.join(build, "tests/preloaded"), runtime("libasan.so")],
        "aarch64": [PYTHON, "tests/aarch64/run.py", os.path.join(build, "aarch64")],
        "shake": [PYTHON, "tests/shake/run.py", build, "20"],
        "instructions": [PYTHON, "bench/instructions.py", library,
                         os.path.join(build, "bench/instructions")],
        "command": pytest + ["tests/cli"],
        "neighbours": pytest + ["tests/neighbours"],
        "soak": [PYTHON, "tests/soak/soak.py", library, "20"],
        "clients": pytest + ["tests/clients"],
        "package": pytest + ["tests/package"],
        "oracle": pytest + ["tests/oracle"],
    }


def count(line):
    """What LINE says of tests: passed and failed."""
    if match := CRITERION.search(line):
        return int(match.group(1)), int(match.group(2)) + int(match.group(3))
    if match := PLAIN.match(line):
        return int(match.group(1)), int(match.group(2))
    if PYTEST_LINE.search(line):
        found = {word: int(number) for number, word in PYTEST.findall(line)}
        return found.get("passed", 0), found.get("failed", 0) + found.get("error", 0)
    return 0, 0


def run(name, command, environment):
    """Runs one stage, shows its output, and returns what it counted and what told of failures."""
    print(f"== {name}: {' '.join(command)}", flush=True)
    passed = failed = 0
    told = []
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               stdin=subprocess.DEVNULL, text=True, errors="replace",
                               env=environment)
    for line in process.stdout:
        print(line, end="", flush=True)
        if FAILURE.search(line):
            told.append(f"{name}: {line}")
        counted = count(line.strip())
        passed += counted[0]
        failed += counted[1]
    if process.wait() != 0 and failed == 0:
        print(f"{name}: exit code {process.returncode}")
        failed = 1
    if passed + failed == 0:
        print(f"{name}: ran no test")
        failed = 1
    return passed, failed, told


def main():
    build = os.path.abspath(sys.argv[1])
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    every = stages(build)
    environment = dict(os.environ, TEST_BUILD=build)
    results = {name: run(name, every[name], environment) for name in sys.argv[2:] or every}
    print()
    for *_, told in results.values():
        print("".join(told), end="")
    for name, (passed, failed, _) in results.items():
        print(f"{name:>14}: {passed} passed, {failed} failed")
    passed = sum(result[0] for result in results.values())
    failed = sum(result[1] for result in results.values())
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
