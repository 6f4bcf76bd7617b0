"""Runs the stages of `make test` or `make night` and adds up what they counted.

Usage: run.py BUILD_DIRECTORY [STAGE...]
       run.py --night SECONDS BUILD_DIRECTORY [STAGE...]

Each stage is a command whose output ends with the count of its own test runner. At the end come the
count and time of each stage, then the tests that failed or were skipped: a page that shows only the
end of the output shows them. The last line is the sum; the exit code is 1 when a test failed, a stage
ended badly, or a stage ran no test. The long stages of a night take
about SECONDS each.
"""

import argparse
import os
import re
import subprocess
import sys
import time

PYTHON = "/usr/bin/python3"

# How the test runners print their counts: Criterion, pytest, and our own programs.
CRITERION = re.compile(r"Passing: (\d+) \| Failing: (\d+) \| Crashing: (\d+)")
CRITERION_SKIPPED = re.compile(r"^\[SKIP\] ")
PYTEST = re.compile(r"(\d+) (passed|failed|error|skipped)")
PYTEST_LINE = re.compile(r"\d+ (passed|failed|error|skipped).* in [\d.]+s")
PLAIN = re.compile(r"^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$")

# The first line of an error that valgrind -q tells. Criterion does not fail a test for its exit code.
VALGRIND = re.compile(r"^==\d+== (?!Warning)\w")

# The lines that name a failed or skipped test; shown again at the end, where they are not lost in the
# rest.
TOLD = re.compile(r"^\[(FAIL|----|SKIP)\]|^(FAILED|ERROR|SKIPPED|E  ) |Unexpected signal|TIMEOUT")


def runtime(name):
    """Where the compiler keeps this library."""
    found = subprocess.run(["gcc", f"-print-file-name={name}"], stdout=subprocess.PIPE, text=True,
                           check=True)
    return found.stdout.strip()


# A test that hangs must fail, with its stack. The longest ones soak for as long as `make night` says.
LONGEST_TEST = 1800 # seconds

PYTEST_COMMAND = [PYTHON, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider",
                  "--timeout", str(LONGEST_TEST)]


def stages(build):
    """What `make test` runs."""
    library = os.path.join(build, "libmcpool.so")
    return {
        "unit": [os.path.join(build, "tests/unit"), "--jobs", "2"],
        "symbols": [PYTHON, "tests/symbols/symbols.py", library],
        "differential": [PYTHON, "tests/differential/run.py",
                         os.path.join(build, "tests/differential")],
        "transparency": [PYTHON, "tests/transparency/transparency.py", library,
                         os.path.join(build, "tests/programs")],
        "fuzz": [PYTHON, "tests/fuzz/run.py", os.path.join(build, "fuzz"), "10"],
        "faults": [PYTHON, "tests/faults/run.py", os.path.join(build, "faults/libmcpool.so"),
                   os.path.join(build, "faults/scenes")],
        "integration": ["tests/integration/run.sh", library, os.path.join(build, "tests/integration_tests")],
        # Tests that ASan makes impossible skip themselves. libc finds the handlers of frames that a jump leaves by
        # their addresses on the stack, where ASan's later versions would not have them.
        "sanitized": ["env", "ASAN_OPTIONS=detect_leaks=0:detect_stack_use_after_return=0",
                      "tests/integration/run.sh",
                      os.path.join(build, "asan/libmcpool.so"),
                      os.path.join(build, "tests/integration_tests"), runtime("libasan.so")],
        "aarch64": [PYTHON, "tests/aarch64/run.py", os.path.join(build, "aarch64")],
        "stress": [PYTHON, "tests/stress/run.py", build, "20"],
        "instructions": [PYTHON, "bench/instructions.py", library,
                         os.path.join(build, "bench/instructions"),
                         os.path.join(build, "bench/lib/turns"),
                         os.path.join(build, "bench/dialogues")],
        "lookups": [PYTHON, "tests/lookups/run.py", os.path.join(build, "lookups/libmcpool.so"),
                    os.path.join(build, "lookups/lookups")],
        "command": PYTEST_COMMAND + ["tests/cli"],
        "interop": PYTEST_COMMAND + ["tests/interop"],
        "soak": [PYTHON, "tests/soak/soak.py", library, "20"],
        "clients": PYTEST_COMMAND + ["tests/clients", "--ignore=tests/clients/test_newest.py"],
        "newest": PYTEST_COMMAND + ["tests/clients/test_newest.py"],
        "package": PYTEST_COMMAND + ["tests/package"],
        "e2e": PYTEST_COMMAND + ["tests/e2e"],
        "bench": PYTEST_COMMAND + ["tests/bench"],
    }


def night_stages(build, seconds):
    """What `make night` runs: the same for longer, and what is too slow for every change."""
    library = os.path.join(build, "libmcpool.so")
    long = str(seconds)
    return {
        "differential": [PYTHON, "tests/differential/run.py",
                         os.path.join(build, "tests/differential"), "1000000000", long],
        "fuzz": [PYTHON, "tests/fuzz/run.py", os.path.join(build, "fuzz"), str(seconds // 3)],
        "stress": [PYTHON, "tests/stress/run.py", build, long],
        "turns": [PYTHON, "tests/stress/run.py", build, "--taken", "1000000"],
        "e2e": ["env", f"ORACLE_OPERATIONS={2500 + 50 * seconds}", *PYTEST_COMMAND, "tests/e2e"],
        "soak": [PYTHON, "tests/soak/soak.py", library, str(2 * seconds)],
        "endurance": ["env", f"FAULTS_SECONDS={2 * seconds}", PYTHON, "bench/faults.py", "--endurance"],
        "bench": ["env", "FAULTS_TESTED=all", *PYTEST_COMMAND, "tests/bench"],
        "family": ["env", f"FAMILY_SECONDS={seconds // 12}", *PYTEST_COMMAND, "tests/interop/test_family_oracle.py"],
        "models": [PYTHON, "tests/models/run.py", build],
        "oldest": [*PYTEST_COMMAND, "tests/oldest"],
        "arm64": [PYTHON, "tests/aarch64/boot.py", build],
        "fresh": [PYTHON, "tests/fresh/run.py", *(f"{suite}:{user}:demo" for suite in ("bookworm", "trixie")
                                                  for user in ("root", "worker")), "trixie:worker:test"],
        "newest": ["env", "NEWEST_ROWS=all", *PYTEST_COMMAND, "tests/clients/test_newest.py"],
        "valgrind-unit": ["valgrind", "-q", "--vgdb=no", "--trace-children=yes", "--error-exitcode=9",
                          os.path.join(build, "plain/tests/unit"), "--jobs", "2"],
        # The suites that give the kernel no wrong addresses, of which valgrind would tell or end.
        "valgrind-integration": ["env", "SUITES=reused|draining|swaps|quits|duplicates|spares|install",
                                 "tests/integration/run.sh", library,
                                 os.path.join(build, "plain/tests/integration_tests"), "", "valgrind", "-q", "--fair-sched=yes",
                                 "--trace-children=yes", "--child-silent-after-fork=yes",
                                 "--error-exitcode=9"],
    }


class Result:
    """A stage's counts, its lines about failed and skipped tests, and its time."""

    def __init__(self):
        self.passed = self.failed = self.skipped = 0
        self.told = []
        self.seconds = 0.0

    def __str__(self):
        skipped = f", {self.skipped} skipped" if self.skipped else ""
        return f"{self.passed} passed, {self.failed} failed{skipped}"

    def add(self, passed, failed, skipped):
        self.passed += passed
        self.failed += failed
        self.skipped += skipped

    def fail(self, why):
        """Counts a failure that no test has told of."""
        self.failed += 1
        self.told.append(why)

    def read(self, line):
        """Takes the counts and failures from LINE."""
        if match := CRITERION.search(line):
            self.add(int(match.group(1)), int(match.group(2)) + int(match.group(3)), 0)
        elif CRITERION_SKIPPED.match(line):
            self.add(0, 0, 1)
        elif VALGRIND.match(line):
            self.add(0, 1, 0)
        elif match := PLAIN.match(line):
            self.add(int(match.group(1)), int(match.group(2)), int(match.group(3) or 0))
        elif PYTEST_LINE.search(line):
            found = {word: int(number) for number, word in PYTEST.findall(line)}
            self.add(found.get("passed", 0), found.get("failed", 0) + found.get("error", 0),
                     found.get("skipped", 0))


def run(name, command, environment):
    """Runs one stage and shows its output."""
    print(f"== {name}: {' '.join(command)}", flush=True)
    result = Result()
    began = time.monotonic()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                               stdin=subprocess.DEVNULL, text=True, errors="replace",
                               env=environment)
    for line in process.stdout:
        print(line, end="", flush=True)
        if TOLD.search(line) or VALGRIND.match(line):
            result.told.append(f"{name}: {line}")
        result.read(line.strip())
    if process.wait() != 0 and result.failed == 0:
        result.fail(f"{name}: exit code {process.returncode}\n")
    if result.passed + result.failed == 0:
        result.fail(f"{name}: ran no test\n")
    result.seconds = time.monotonic() - began
    print(f"== {name}: {result.seconds:.0f} s", flush=True)
    return result


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--night", type=int, metavar="SECONDS")
    parser.add_argument("build")
    parser.add_argument("stages", nargs="*")
    arguments = parser.parse_args()
    build = os.path.abspath(arguments.build)
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
    every = stages(build) if arguments.night is None else night_stages(build, arguments.night)
    environment = dict(os.environ, TEST_BUILD=build)
    results = {name: run(name, every[name], environment) for name in arguments.stages or every}
    total = Result()
    print()
    for name, result in results.items():
        print(f"{name:>16}: {result}, {result.seconds:.0f} s")
        total.add(result.passed, result.failed, result.skipped)
    for result in results.values():
        print("".join(result.told), end="")
    print(f"{total.passed} passed, {total.failed} failed, {total.skipped} skipped")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
