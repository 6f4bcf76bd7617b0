"""Builds the library and the command for the wheel with make, in build/wheel.

MCPOOL_MACHINE names another processor than this machine's, x86_64 or aarch64. What is built runs with every
glibc from 2.28 on, which the tag says; a build that needs a newer one is refused.
"""

import os
import platform
import re
import shutil
import subprocess

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

OLDEST_GLIBC = (2, 28)


def newest_glibc(path):
    """The newest version of glibc's symbols that PATH needs. Their names are in it as they are."""
    with open(path, "rb") as file:
        found = re.findall(rb"\0GLIBC_(\d+)\.(\d+)(?=[.\d]*\0)", file.read())
    return max((int(major), int(minor)) for major, minor in found)


class Compile(BuildHookInterface):
    def initialize(self, version, build_data):
        machine = os.environ.get("MCPOOL_MACHINE") or platform.machine()
        here = machine == platform.machine()
        folder = os.path.join("build", "wheel")
        root = os.path.join(self.root, folder, "root")
        compiler = os.environ.get("CC") or ("cc" if here else f"{machine}-linux-gnu-gcc")
        # uthash is only headers, which a compiler for another processor does not find.
        flags = "-O2" if here else "-O2 -idirafter /usr/include"
        shutil.rmtree(root, ignore_errors=True)
        subprocess.run(["make", f"B={folder}/{machine}", f"CC={compiler}", f"CFLAGS={flags}", "LDFLAGS=-Wl,-s",
                        f"DESTDIR={root}", "PREFIX=", "LIBDIR=/lib", "install"], cwd=self.root, check=True)
        for name in ("lib/libmcpool.so", "bin/mcpool"):
            needed = newest_glibc(os.path.join(root, name))
            if needed > OLDEST_GLIBC:
                raise RuntimeError(f"{name} needs glibc {needed[0]}.{needed[1]}")
        build_data["pure_python"] = False
        build_data["tag"] = f"py3-none-manylinux_{OLDEST_GLIBC[0]}_{OLDEST_GLIBC[1]}_{machine}"
