"""Network namespaces, for tests and measurements. They are held by processes and go with them. Needs root."""

import contextlib
import ctypes
import subprocess

from support import die_with_parent

CLONE_NEWNET = 0x40000000


@contextlib.contextmanager
def started(command, **more):
    """A process that ends with the block."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                               preexec_fn=die_with_parent, **more)
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()


@contextlib.contextmanager
def namespace():
    """The words that put a command in a network namespace of its own, and its path."""
    with started(["unshare", "--net", "sh", "-c", "echo; exec cat"]) as holder:
        if not holder.stdout.readline():
            raise RuntimeError("no network namespace can be made")
        path = f"/proc/{holder.pid}/ns/net"
        yield ("nsenter", f"--net={path}"), path


def leave():
    """Puts this process, before it has threads, in a network namespace of its own, which has a loopback."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNET):
        raise RuntimeError("no network namespace can be made")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
