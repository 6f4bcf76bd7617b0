"""Programs that must not notice the library: each runs without and with it, and must do the same.

Usage: transparency.py LIBRARY PROGRAMS [NAME...]. PROGRAMS is the program made of programs/*.c; scripts beside
them are programs too. Everything they print is compared, and how they end. For a program that is listed as
reusing a connection, the log must show that it did. The last line counts programs like tests.
"""

import collections
import concurrent.futures
import difflib
import os
import re
import socket
import socketserver
import struct
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, ".."))
from support import PYTHON, SLOWNESS, die_with_parent, free_port, preloaded

INTERPRETERS = {".py": [PYTHON], ".pl": ["perl"], ".php": ["php"], ".rb": ["ruby"],
                ".java": ["java"], ".tcl": ["tclsh"]}

LONGEST = 65536

Program = collections.namedtuple("Program", "name command reuses")


def value(key, text):
    return f"VALUE {key} 0 {len(text)}\r\n{text}\r\nEND\r\n".encode()


class Script(socketserver.StreamRequestHandler):
    """One connection to a server that speaks memcached's text protocol, with special behaviour for some
    keys."""

    def handle(self):
        try:
            for line in iter(lambda: self.rfile.readline(LONGEST), b""):
                if len(line) == LONGEST:
                    time.sleep(1)  # so that a client that writes without end must wait
                if not line.endswith(b"\n") or not self.answer(line.decode("latin-1").split()):
                    break
        except OSError:
            pass

    def answer(self, words):
        """Handles a request; false when the connection is to end."""
        if words[:1] == ["get"] and len(words) == 2:
            return self.get(words[1])
        if words[:1] == ["set"] and len(words) >= 5:
            self.rfile.read(int(words[4]) + 2)
            self.say(b"STORED\r\n" if words[-1] != "noreply" else b"")
        elif words == ["mn"]:
            self.say(b"MN\r\n")
        elif words == ["quit"]:
            return False
        else:
            self.say(b"ERROR\r\n")
        return True

    def get(self, key):
        if key == "drop":
            return False
        if key == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        if key == "never":
            return True
        if key == "half":
            self.say(b"VALUE half 0 10\r\nabc")
            return True
        if key == "slow":
            time.sleep(0.2)
        self.say(value(key, "x" * 300000 if key == "large" else f"value-of-{key}"))
        if key == "then-stray":
            time.sleep(0.05)
            self.say(b"STRAY\r\n")
        return key != "then-drop"

    def say(self, text):
        self.connection.sendall(text)


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True

    def shutdown_request(self, request):
        """Closes without the shutdown(), which would come before a reset."""
        self.close_request(request)


def c_programs(program):
    listed = subprocess.run([program, "--list"], stdout=subprocess.PIPE, text=True, check=True)
    return [Program(name, [program, name], reuses == "1")
            for name, reuses in map(str.split, listed.stdout.splitlines())]


def scripts():
    folder = os.path.join(HERE, "programs")
    found = [os.path.join(folder, name) for name in sorted(os.listdir(folder))]
    return [Program(os.path.basename(path), INTERPRETERS[os.path.splitext(path)[1]] + [path], True)
            for path in found if os.path.splitext(path)[1] in INTERPRETERS]


def run(program, library, ports, log):
    """The program's output, and how it ended."""
    environment = preloaded(library, "*", MCPOOL_LOG=log, MCPOOL_LOG_LEVEL="debug")
    environment.update(LC_ALL="C", PYTHONUNBUFFERED="1")
    try:
        done = subprocess.run(program.command + ports, env=environment, stdin=subprocess.DEVNULL,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30 * SLOWNESS,
                              preexec_fn=die_with_parent)
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode("latin-1").splitlines() + ["does not end"]
    return done.stdout.decode("latin-1").splitlines() + [f"exit code {done.returncode}"]


def difference(program, library, ports):
    """The differences with the library; empty when there are none."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        log = os.path.join(folder, "log")
        without = run(program, None, ports, log)
        with_it = run(program, library, ports, log)
        said = ""
        if os.path.exists(log):
            with open(log, encoding="latin-1") as file:
                said = file.read()
    found = list(difflib.unified_diff(without, with_it, "without", "with", lineterm="", n=2))
    if len(without) < 2 or "does not end" in without:
        found.append("is no program: says nothing, or does not end")
    if program.reuses and not re.search(r": reused as \d", said):
        found.append("reused no connection")
    return found


def main():
    library, program = map(os.path.abspath, sys.argv[1:3])
    programs = [program for program in c_programs(program) + scripts()
               if program.name in sys.argv[3:] or len(sys.argv) == 3]
    with socket.socket() as unused, Server(("127.0.0.1", free_port()), Script) as server:
        unused.bind(("127.0.0.1", free_port()))  # bound, but not listening
        ports = [str(server.server_address[1]), str(unused.getsockname()[1])]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        with concurrent.futures.ThreadPoolExecutor(4) as threads:
            differences = list(threads.map(lambda one: difference(one, library, ports), programs))
        server.shutdown()
    for program, found in zip(programs, differences):
        if found:
            print(f"FAILED {program.name}", *found, sep="\n    ")
    equal = sum(not found for found in differences)
    print(f"{equal} of {len(programs)} programs notice nothing")
    print(f"{equal} passed, {len(programs) - equal} failed")
    return 0 if equal == len(programs) else 1


if __name__ == "__main__":
    sys.exit(main())
