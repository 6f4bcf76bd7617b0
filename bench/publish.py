"""Puts what `make bench` measured into RESULTS.md and plots/, and the headlines into README.md,
between its two marks. All are beside this file.

Usage: publish.py [BUILD_DIRECTORY]. Takes the subjects that BUILD_DIRECTORY/bench has; to be run
where the machine had nothing else to do.
"""

import csv
import datetime
import os
import platform
import re
import shutil
import subprocess
import sys

from run import SUBJECTS

HERE = os.path.dirname(os.path.abspath(__file__))
PLOTS = os.path.join(HERE, "plots")
OF_THE_DEMO = "demo.svg"  # made by demo/picture.py

README = os.path.join(HERE, "README.md")
BEGIN, END = "<!-- made by bench/publish.py -->", "<!-- until here -->"

HEAD = """# Results

Made by `make bench` and `bench/publish.py`; [README.md](README.md) says what is measured how. What
counts are the ratios: each is the median of ratios within a round, with the quartiles beside it.
Absolute numbers are context.

{machine}"""


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def machine(commit=None):
    """What it was measured on, and at which commit."""
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        model = re.search(r"^model name\s*: (.*)", file.read(), re.MULTILINE)
    return (f"{datetime.date.today()}, {os.cpu_count()} × "
            f"{model.group(1) if model else platform.machine()}, Linux {platform.release()}, "
            f"{output('memcached', '-V')}, commit "
            f"{commit or output('git', '-C', HERE, 'describe', '--always', '--dirty')}.")


def headlines(build):
    """The headlines of all subjects, as a table."""
    rows = []
    for subject in SUBJECTS:
        path = os.path.join(build, "bench", f"{subject}.headlines.csv")
        if os.path.exists(path):
            with open(path, encoding="utf-8") as file:
                header, *more = csv.reader(file)
            rows += more
    return "\n".join("| " + " | ".join(row) + " |"
                     for row in [header, ["---", *["---:"] * (len(header) - 1)], *rows])


def write_between_marks(path, text):
    with open(path, encoding="utf-8") as file:
        before, _, rest = file.read().partition(BEGIN)
        _, mark, after = rest.partition(END)
    if not mark:
        sys.exit(f"publish: {path} has no marks")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"{before}{BEGIN}\n{text}\n{END}{after}")


def main():
    build = os.path.abspath(sys.argv[1] if len(sys.argv) > 1 else os.path.join(HERE, "../build"))
    parts = [HEAD.format(machine=machine())]
    for name in os.listdir(PLOTS):
        if name != OF_THE_DEMO:
            os.remove(os.path.join(PLOTS, name))
    for subject in SUBJECTS:
        path = os.path.join(build, "bench", f"{subject}.md")
        if not os.path.exists(path):
            print(f"publish: {subject} was not measured")
            continue
        with open(path, encoding="utf-8") as file:
            parts.append(file.read().strip())
        for name in re.findall(r"\(plots/([\w-]+\.svg)\)", parts[-1]):
            shutil.copy(os.path.join(build, "bench", name), PLOTS)
    with open(os.path.join(HERE, "RESULTS.md"), "w", encoding="utf-8") as file:
        file.write("\n\n".join(parts) + "\n")
    write_between_marks(README, headlines(build))


if __name__ == "__main__":
    main()
