"""The library on a machine with an aarch64 kernel, which qemu emulates: there connections are pooled.

Usage: boot.py BUILD_DIRECTORY. The machine is Debian 12 with its kernel for clouds, all of it in memory;
the tree is kept in the build directory. What inside.sh prints there is printed here, with the counts of its
test runners. A machine that does not come to the end of inside.sh is a failed test.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "..", "package")]
from machine import apt_settings, sources, why_not
from support import die_with_parent

TOP = os.path.abspath(os.path.join(HERE, "..", ".."))
SUITE = "bookworm"
SOFTWARE = ["linux-image-cloud-arm64", "busybox-static", "dash", "memcached", "libcriterion-dev", "python3",
            "python3-memcache"]
TOOLS = ["qemu-system-aarch64", "cpio", "aarch64-linux-gnu-gcc"]
# What nothing needs there that runs.
LEFT_OUT = ["boot", "lib/modules", "usr/lib/modules", "usr/include", "usr/share/doc", "usr/share/man",
            "usr/share/locale"]
QEMU = ["qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "2G", "-nographic",
        "-no-reboot", "-nic", "none", "-append", "console=ttyAMA0 quiet panic=-1"]
# It prints each test that it begins, so one that hangs is named, and it may be slow where much else runs.
LONGEST_SILENCE = 1800  # seconds
THE_END = re.compile(r"the machine's tests end with (\d+)$")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
# What Criterion says of itself, and of tests that its filter leaves out.
UNTOLD = re.compile(r"^\[----\] Criterion v|^\[SKIP\] .*: Test is disabled$")


def make_tree(tree):
    """Unpacks the packages; none is set up, so no program of that machine runs on this one. A tree with other
    software is made anew."""
    contents = os.path.join(tree, "contents")
    wanted = "\n".join([*SOFTWARE, *apt_settings()])
    if os.path.exists(contents):
        with open(contents, encoding="ascii") as file:
            if file.read() == wanted:
                return
    subprocess.run(["rm", "-rf", "--one-file-system", tree], check=True)
    os.makedirs(os.path.dirname(tree), exist_ok=True)
    subprocess.run(["mmdebstrap", "--quiet", "--arch=arm64", "--variant=extract",
                    *(f"--aptopt={line}" for line in apt_settings()), f"--include={','.join(SOFTWARE)}", SUITE, tree,
                    sources().split()[1]], check=True, stdin=subprocess.DEVNULL)
    with open(contents, "w", encoding="ascii") as file:
        file.write(wanted)


def programs(folder):
    """What was built there and runs: programs and libraries, by their paths in FOLDER."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if os.access(path, os.X_OK):
                yield os.path.relpath(path, folder)


def add(archive, folder, names):
    subprocess.run(["cpio", "--quiet", "--create", "--null", "--format=newc"], input="\0".join(names).encode(),
                   stdout=archive, cwd=folder, check=True)


def pack(path, tree, built, work):
    """Writes the machine's memory: the tree, the tests at /srv, and what was built for it at /srv/build."""
    pruned = [word for name in LEFT_OUT for word in ("-path", f"./{name}", "-o")]
    found = subprocess.run(["find", ".", "(", *pruned, "-name", "*.a", ")", "-prune", "-o", "-print0"], cwd=tree,
                           check=True, stdout=subprocess.PIPE, text=True).stdout
    shutil.copytree(os.path.join(TOP, "tests"), os.path.join(work, "srv/tests"),
                    ignore=shutil.ignore_patterns("__pycache__", "corpus"))
    os.symlink("srv/tests/aarch64/init.sh", os.path.join(work, "init"))
    for name in programs(built):
        target = os.path.join(work, "srv/build", name)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        shutil.copy(os.path.join(built, name), target)
    with open(path, "wb") as archive:
        add(archive, tree, found.split("\0"))
        os.makedirs(os.path.join(work, "etc"))
        found = subprocess.run(["find", ".", "-print0"], cwd=work, check=True, stdout=subprocess.PIPE, text=True)
        add(archive, work, found.stdout.split("\0"))


def end_after_silence(machine):
    timer = threading.Timer(LONGEST_SILENCE, machine.kill)
    timer.daemon = True
    timer.start()
    return timer


def boot(kernel, memory):
    """Shows what the machine prints; True when it came to the end of its tests, and they were good."""
    machine = subprocess.Popen([*QEMU, "-kernel", kernel, "-initrd", memory], stdin=subprocess.DEVNULL,
                               stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
                               preexec_fn=die_with_parent)
    timer = end_after_silence(machine)
    end = None
    try:
        for line in machine.stdout:
            timer.cancel()
            timer = end_after_silence(machine)
            line = COLOUR.sub("", line).rstrip()
            if not UNTOLD.search(line):
                print(line, flush=True)
            end = THE_END.search(line)
            if end:
                break
    finally:
        timer.cancel()
        machine.kill()
        machine.wait()
    if end is None:
        print("FAILED the machine does not come to the end of its tests\n0 passed, 1 failed")
    return end is not None and end.group(1) == "0"


def main():
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was made is removed then, too
    build = os.path.abspath(sys.argv[1])
    tree, built = os.path.join(build, "machine/arm64"), os.path.join(build, "arm64")
    if reason := why_not() or next((f"no {tool} here" for tool in TOOLS if not shutil.which(tool)), None):
        print(f"SKIPPED {reason}\n0 passed, 0 failed, 1 skipped")
        return 0
    make_tree(tree)
    subprocess.run(["make", "-s", "-j2", "-C", TOP, f"B={build}", f"TREE={tree}", "arm64-programs"], check=True)
    [kernel] = (os.path.join(tree, "boot", name) for name in os.listdir(os.path.join(tree, "boot"))
                if name.startswith("vmlinuz"))
    with tempfile.TemporaryDirectory(prefix="mcpool-arm64-", dir=build) as work:
        root, memory = os.path.join(work, "root"), os.path.join(work, "memory")
        pack(memory, tree, built, root)
        return 0 if boot(kernel, memory) else 1


if __name__ == "__main__":
    sys.exit(main())
