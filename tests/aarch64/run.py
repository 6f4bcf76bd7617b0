"""The library for aarch64: its symbols, and programs under qemu-user that must not notice it.

Usage: run.py DIRECTORY, where `make aarch64-programs` built. qemu-user knows neither SO_COOKIE nor the
byte counters of TCP_INFO, so there is no proof and nothing is pooled: what is shown is that every hook
binds, passes its calls on and refuses as it should. The tracker, which needs no kernel, is run in full.
The last line counts like a test's.
"""

import concurrent.futures
import os
import re
import subprocess
import sys
import threading

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "../symbols"),
                os.path.join(HERE, "../transparency")]
from symbols import DYNAMIC_TLS, exported, foreign_hooks, listed_hooks, newer_than_supported
from support import Memcached, die_with_parent, free_port, preloaded
from transparency import Script, Server

TOOLS = "aarch64-linux-gnu-"
QEMU = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]
SEQUENCES = "2000"

# What qemu itself does differently: cancelled or interrupted threads, limits, fds of its own that a bulk
# close hits, children that share memory. And programs of this machine, which cannot load the library.
BEYOND_QEMU = re.compile(r"cancel|alarm|handler|limit|clone|fork|fds?(_|$)|by_syscall|thread|close|crash|kill|"
                         r"range|shell|spawn|program")


def output(*command):
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def exports_are_the_list(library):
    hooks, aliases = listed_hooks()
    return exported(library, f"{TOOLS}nm") == hooks | aliases | foreign_hooks()


def is_hardened(library):
    dynamic = output(f"{TOOLS}readelf", "-dW", library)
    segments = output(f"{TOOLS}readelf", "-lW", library)
    return ("TEXTREL" not in dynamic and "NOW" in dynamic and "NODELETE" in dynamic
            and "GNU_RELRO" in segments and not re.search(r"GNU_STACK.*E ", segments))


def runs_with_the_oldest_glibc(library):
    return not newer_than_supported(library, f"{TOOLS}readelf")


def thread_locals_need_no_call(library):
    return not DYNAMIC_TLS.search(output(f"{TOOLS}readelf", "-rW", library))


def dlopen_ends_in_a_jump(library):
    code = output(f"{TOOLS}objdump", "-d", "--disassemble=dlopen", library)
    return re.search(r"\tbr\tx\d+", code) is not None


def run(program, library, *arguments):
    """PROGRAM's output and how it ends."""
    preload = ["-E", f"LD_PRELOAD={library}", "-E", "MCPOOL_SERVERS=*"] if library else []
    try:
        done = subprocess.run([*QEMU, *preload, program, *arguments], env=preloaded(None, ""),
                              stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, timeout=60, preexec_fn=die_with_parent)
    except subprocess.TimeoutExpired:
        return "does not end"
    return f"{done.stdout.decode('latin-1')}exit code {done.returncode}"


def notices(program, library, ports, name):
    """The differences that the program NAME sees; empty when none."""
    without, with_it = (run(program, which, name, *ports) for which in (None, library))
    if without == "does not end":
        return f"is no program here: {without}"
    return "" if with_it == without else f"{without}\nbut with the library\n{with_it}"


def programs(folder):
    """The results of all programs, by name."""
    program, library = os.path.join(folder, "tests/programs"), os.path.join(folder, "libmcpool.so")
    listed = re.findall(r"^(\w+) \d$", run(program, None, "--list"), re.MULTILINE)
    names = [name for name in listed if not BEYOND_QEMU.search(name)]
    with Server(("127.0.0.1", free_port()), Script) as server:
        ports = [str(server.server_address[1]), str(free_port())]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda name: notices(program, library, ports, name), names))
        server.shutdown()
    return dict(zip(names, found))


def command_needs_only_libc(folder):
    dynamic = output(f"{TOOLS}readelf", "-dW", os.path.join(folder, "mcpool"))
    return set(re.findall(r"\(NEEDED\).*\[(.*?)\]", dynamic)) <= {"libc.so.6", "ld-linux-aarch64.so.1"}


def command_runs(folder):
    """It says what the command of this machine says."""
    here = os.path.join(os.path.dirname(folder), "mcpool")
    return all(run(os.path.join(folder, "mcpool"), None, *words) ==
               f"{output(here, *words)}exit code 0" for words in (["version"], ["explain", "TLS"], ["run", "--help"]))


def tracker_is_right(folder):
    with Memcached() as server:
        done = run(os.path.join(folder, "tests/differential"), None, "127.0.0.1",
                   str(server.port), "--sequences", SEQUENCES, "--seconds", "50")
    print(done)
    return done.endswith("exit code 0")


def main():
    folder = os.path.abspath(sys.argv[1])
    library = os.path.join(folder, "libmcpool.so")
    results = {check.__name__: check(library) for check in
               (exports_are_the_list, is_hardened, runs_with_the_oldest_glibc, thread_locals_need_no_call, dlopen_ends_in_a_jump)}
    results["command_runs_with_the_oldest_glibc"] = runs_with_the_oldest_glibc(os.path.join(folder, "mcpool"))
    results |= {check.__name__: check(folder) for check in (command_needs_only_libc, command_runs)}
    results["tracker_is_right"] = tracker_is_right(folder)
    for name, found in programs(folder).items():
        results[name] = not found
        if found:
            print(f"FAILED {name}: {found}")
    for name, good in results.items():
        if not good:
            print(f"FAILED {name}")
    passed = sum(results.values())
    print(f"{passed} passed, {len(results) - passed} failed")
    return 0 if passed == len(results) else 1


if __name__ == "__main__":
    sys.exit(main())
